"""Forked ranks and their ends, without torch: the ranks do what a script says."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

LEAD = r"""
import json, os, signal, sys, time
from benchrunner.worker import ranks
ranks.GRACE_S = 1.0
vars(ranks)["_store"] = lambda meeting: (os.close(all_up[1]), time.sleep(float(sys.argv[2])))
all_up = os.pipe()
def rank(script):
    number = int(os.environ["RANK"])
    act = json.loads(script)[number]
    if act.get("deaf"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    said = json.dumps({"rank": number, "pid": os.getpid(), "session": os.getsid(0),
        "env": {name: os.environ[name] for name in ("MASTER_PORT", "WORLD_SIZE", "LOCAL_RANK")},
        "sigterm": signal.getsignal(signal.SIGTERM) == signal.SIG_DFL})
    os.write(1, f"{said}\n".encode())
    os.close(all_up[1])
    os.read(all_up[0], 1)  # until every rank has come so far
    time.sleep(act["s"])
    if act["code"] < 0:
        os.kill(os.getpid(), -act["code"])
    os._exit(act["code"])
ranks.worker.main = rank
try:
    exits = ranks.run_ranks(sys.argv[1], len(json.loads(sys.argv[1])))
except ranks.Stopped as stopped:
    exits = f"stopped by {stopped.signum}"
print(json.dumps(list(exits.items()) if isinstance(exits, dict) else exits), flush=True)
"""
FOREVER = {"s": 600, "code": 0}


def start(*acts, late_s=0):
    command = [sys.executable, "-c", LEAD, json.dumps(acts), str(late_s)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def lead(*acts, late_s=0):
    """What the ranks said, what became of them, and the log; the agent looks at them so late."""
    out, log = start(*acts, late_s=late_s).communicate(timeout=120)
    *said, ends = [json.loads(line) for line in out.splitlines()]
    return said, ends, log


def test_ranks_that_reach_their_end():
    said, ends, log = lead({"s": 0, "code": 0}, {"s": 0.2, "code": 0})
    assert (ends, log) == ([], "")
    assert sorted(told["env"]["LOCAL_RANK"] for told in said) == ["0", "1"]
    assert {told["env"]["WORLD_SIZE"] for told in said} == {"2"} and said[0]["sigterm"]
    assert len({told["env"]["MASTER_PORT"] for told in said}) == 1
    assert all(told["session"] == told["pid"] for told in said)


@pytest.mark.parametrize("code", [7, -signal.SIGSEGV, -signal.SIGKILL])
def test_one_that_fails_comes_first_and_the_others_are_ended(code):
    said, ends, log = lead(FOREVER, {"s": 0.2, "code": code}, FOREVER)
    assert ends[0] == [1, code] and sorted(ends[1:]) == [[0, -signal.SIGTERM], [2, -signal.SIGTERM]]
    pids = {told["rank"]: told["pid"] for told in said}
    assert f"rank 1 (process {pids[1]}) ended with code {code}" in log
    assert all(f"Sending process {pids[rank]} closing signal SIGTERM" in log for rank in (0, 2))
    assert f"Sending process {pids[1]} " not in log


def test_one_that_fell_beside_the_first_was_not_told_to():
    _, ends, log = lead({"s": 0, "code": 1}, {"s": 0, "code": -signal.SIGSEGV}, FOREVER, late_s=1)
    assert dict(ends) == {0: 1, 1: -signal.SIGSEGV, 2: -signal.SIGTERM}
    assert log.count("closing signal") == 1


def test_one_that_leaves_with_code_0_ends_nobody():
    _, ends, _ = lead({"s": 0, "code": 0}, {"s": 0.5, "code": 3})
    assert ends == [[1, 3]]


def test_one_that_does_not_listen_is_killed():
    _, ends, _ = lead(FOREVER | {"deaf": True}, {"s": 0.5, "code": 7})
    assert ends == [[1, 7], [0, -signal.SIGKILL]]


def test_told_to_stop_none_is_left():
    process = start(FOREVER, FOREVER)
    pids = [json.loads(process.stdout.readline())["pid"] for _ in range(2)]
    time.sleep(0.1)
    process.terminate()
    out, _ = process.communicate(timeout=60)
    assert json.loads(out) == f"stopped by {int(signal.SIGTERM)}"
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)
