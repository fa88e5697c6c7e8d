"""Every way a rank can die, on every rank: real ranks, real collectives, and the verdict that they get.

Jobs are forked as `bench` does it, which costs a second each; the same faults go through torchrun under `slow`, and
through `bench` itself in benchmarks/faults.py.
"""

import json
import time
from contextlib import suppress
from functools import partial

import psutil
import pytest

from benchrunner.core.faults import DEATHS, parse_fault
from benchrunner.core.paths import SweepPaths
from benchrunner.core.record import PHASES
from benchrunner.launch import processes
from benchrunner.launch.local import LocalLauncher
from benchrunner.plan.plan import Plan
from benchrunner.run.options import RunOptions
from benchrunner.run.sweep import run_plan
from benchrunner.worker.faults.deaths import ACTS
from forked import ForkLauncher
from samples import CPU, make_cell, plan_cell

ENVIRONMENT = {"benchrunner": "0.1.0", "versions": {}, "driver": None, "gpus": []}
SHAPE = {"model.num_layers": 1, "model.d_model": 32, "model.d_ff": 64, "model.vocab_size": 64}
LEAVES = {"seq_len": 16, "measure.steps": 2, "measure.warmup_steps": 1, "timeout_s": 600.0}

VERDICTS = {
    "exception": ("failed", "failed.exception", "raised RuntimeError: planted fault: exception"),
    "hostile_text": ("failed", "failed.exception", "raised RuntimeError: planted | fault"),
    "oom": ("oom", "oom.device", "ran out of device memory when it asked for 1.00 TiB (0.1 of 80.0 GiB were free)"),
    "oom_disguised": ("oom", "oom.disguised", "met an error of cuBLAS with the device full (0.1 of 80.0 GiB"),
    "oom_host": ("oom", "oom.host", "ran out of host memory"),
    "unsupported": ("unsupported", "runtime.dtype_not_implemented", "is not implemented for this number format"),
    "missing": ("unsupported", "missing.transformer_engine", "No module named 'transformer_engine'"),
    "peer_loss": ("failed", "failed.peer_loss", "lost a peer, and no rank left a cause"),
    "broken_device": ("failed", "failed.exception", "raised RuntimeError: CUDA error: device-side assert triggered"),
    "sigkill": ("failed", "failed.signal", "was killed by SIGKILL"),
    "sigsegv": ("failed", "failed.signal", "was killed by SIGSEGV"),
    "exit": ("failed", "failed.exit", "exited with code 7 without reporting an error"),
    "leave": ("failed", "failed.exit", "exited with code 0 without reporting an error"),
    "nan": ("failed", "failed.nonfinite", "met a number that is not finite: the loss of step 1 is nan"),
    "garbage": ("failed", "failed.garbage", "left a status file that cannot be read"),
    "disk_full": ("failed", "failed.disk", "could not write its status file"),
}
"""Fault → status, reason code and words of the reason."""

HARMLESS = ("grandchild", "print_env", "clock_jump", "flood")
HANGS = ("hang", "ignore_sigterm")
QUIET = ("leave", "garbage")
"""torchrun takes an exit with code 0 for success; the runner alone sees that the rank has gone."""

DAYS_S = 1e6


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="module")
def forked():
    launcher = ForkLauncher()
    yield launcher
    launcher.end()


class LeapClock:
    """Real time, but for the seconds that nobody wants to wait for: they are leapt over once `is_time` says so."""

    def __init__(self, leaps_s, is_time):
        self.leaps_s, self.is_time, self.offset_s, self.is_leaping = list(leaps_s), is_time, 0.0, False

    def now(self):
        return time.monotonic() + self.offset_s

    def sleep(self, seconds):
        time.sleep(seconds)
        self.is_leaping = self.is_leaping or (bool(self.leaps_s) and self.is_time())
        if self.is_leaping and self.leaps_s:
            self.offset_s += self.leaps_s.pop()


class Sight:
    """What can be seen of a job from outside."""

    def __init__(self, paths, fault):
        self.paths, self.fault = paths, fault

    def statuses(self):
        texts = [path.read_bytes() for path in sorted(self.paths.root.glob("cells/*/attempt-1/rank*.json"))]
        return [json.loads(text) for text in texts]

    def has_struck(self):
        logs = self.paths.root.glob(f"cells/*/attempt-1/rank{self.fault.rank}.err")
        return any("planted fault" in path.read_text(errors="replace") for path in logs)

    def has_left(self):
        """The rank that was struck has gone."""
        if not self.has_struck():
            return False
        own = [status["pid"] for status in self.readable() if status["rank"] == self.fault.rank]
        return not any(psutil.pid_exists(pid) for pid in own)

    def readable(self):
        with suppress(ValueError):
            return self.statuses()
        return []

    def all_wait(self):
        """Every rank has come as far as it can, and sleeps."""
        if not self.has_struck() or len(self.statuses()) < 2:
            return False
        with suppress(psutil.NoSuchProcess):  # on a busy machine one may have gone meanwhile
            ranks = [psutil.Process(status["pid"]) for status in self.statuses()]
            before = [rank.cpu_times()[:2] for rank in ranks]
            for _ in range(8):
                time.sleep(0.05)
                if any(rank.status() == psutil.STATUS_RUNNING for rank in ranks):
                    return False
            return before == [rank.cpu_times()[:2] for rank in ranks]
        return False


def run_fault(tmp_path, text, launcher, when_struck=None):
    """The record of a job of two ranks under this fault; `when_struck` is called once it has struck."""
    fault = parse_fault(text)
    planned = plan_cell(make_cell(strategy="ddp", leaves=LEAVES | SHAPE))
    plan = Plan(cells=[planned], hardware=CPU, sweep_name="cli", arguments=[], created_at="2026-11-21T03:00:00+00:00")
    paths = SweepPaths(tmp_path)
    sight = Sight(paths, fault)
    leaps_s = [DAYS_S] if fault.kind in HANGS else [1.0] * 30 if fault.kind in QUIET else []
    clock = LeapClock(leaps_s, sight.all_wait if fault.kind in HANGS else sight.has_left)
    if when_struck is not None:
        clock = LeapClock([0.0], lambda: sight.all_wait() and when_struck(sight))
    run_plan(plan, paths, launcher=launcher, options=RunOptions(environment=ENVIRONMENT, fault=text, clock=clock))
    attempt = paths.cell(planned.cell.slug).attempt(1)
    assert processes.marked_pids(json.loads(attempt.cell.read_text())["marker"]) == []
    record = json.loads(paths.cell(planned.cell.slug).record.read_text())
    assert record["fault"] == text
    return record


def check_death(record, kind, rank):
    status, code, words = VERDICTS[kind]
    assert (record["status"], record["reason_code"]) == (status, code)
    assert words in record["reason"] and "\n" not in record["reason"]
    assert record["evidence"]["rank"] == rank and record["evidence"]["lines"]
    assert [stand["rank"] for stand in record["evidence"]["ranks"]] == [0, 1]


def check_hang(record, phase, rank):
    assert (record["status"], record["reason_code"]) == ("timeout", f"timeout.{phase}")
    assert record["evidence"]["rank"] == rank and "deaths.py" in record["reason"]
    assert all(record["evidence"]["stacks"][other] for other in "01")


def check_kept(record, rank):
    """What was measured before the checks began stays, with what became of the checks."""
    assert (record["status"], record["reason_code"]) == ("ok", None)
    assert f"rank {rank}" in record["reason"] and "check" in record["reason"]
    assert "unverified:trains" in record["flags"] and record["metrics"]["step_time_median_s"] > 0


def check_survivor(record):
    assert (record["status"], record["reason"]) == ("ok", None)
    assert 0 < record["wall_s"] < DAYS_S / 100 and all(0 <= spent < 3600 for spent in record["phases_s"].values())


def test_every_death_has_its_act_and_its_verdict():
    assert set(DEATHS) == set(ACTS) == {*VERDICTS, *HARMLESS, *HANGS}


ON_BOTH = ("nan", "peer_loss", "garbage")
"""What the other rank has a part in: fast on both; the rest fast on one rank and slow on the other."""
ONE_EACH = [
    pytest.param(kind, rank, marks=[] if kind in ON_BOTH or index % 2 == rank else [pytest.mark.slow])
    for index, kind in enumerate(VERDICTS)
    for rank in (0, 1)
]


@pytest.mark.parametrize(("kind", "rank"), ONE_EACH)
def test_deaths(tmp_path, forked, kind, rank):
    check_death(run_fault(tmp_path, f"{kind}@{rank}", forked), kind, rank)
    assert forked.handles[-1].pids() == []


@pytest.mark.parametrize(
    "phase",
    [pytest.param(phase, marks=[] if phase in ("build", "measure") else [pytest.mark.slow]) for phase in PHASES],
)
def test_hangs(tmp_path, forked, phase):
    rank = PHASES.index(phase) % 2
    record = run_fault(tmp_path, f"hang@{rank}:{phase}", forked)
    (check_kept if phase == "check" else partial(check_hang, phase=phase))(record, rank=rank)
    assert forked.handles[-1].pids() == []


@pytest.mark.slow
@pytest.mark.parametrize("phase", PHASES)
def test_hangs_of_the_other_rank(tmp_path, forked, phase):
    rank = 1 - PHASES.index(phase) % 2
    record = run_fault(tmp_path, f"hang@{rank}:{phase}", forked)
    (check_kept if phase == "check" else partial(check_hang, phase=phase))(record, rank=rank)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["exception", "oom", "sigkill", "exit"])
@pytest.mark.parametrize("phase", PHASES)
def test_deaths_in_every_phase(tmp_path, forked, kind, phase):
    record = run_fault(tmp_path, f"{kind}@1:{phase}", forked)
    if phase == "check":
        check_kept(record, 1)
    else:
        check_death(record, kind, 1)
        assert f"in phase {phase}" in record["reason"]


@pytest.mark.parametrize(
    ("kind", "rank"),
    [
        pytest.param(kind, rank, marks=[] if index % 2 == rank else [pytest.mark.slow])
        for index, kind in enumerate(HARMLESS)
        for rank in (0, 1)
    ],
)
def test_what_is_survived(tmp_path, forked, kind, rank):
    check_survivor(run_fault(tmp_path, f"{kind}@{rank}", forked))


def test_a_rank_that_ignores_sigterm(tmp_path, forked):
    check_hang(run_fault(tmp_path, "ignore_sigterm@1:warmup", forked), "warmup", 1)
    assert forked.handles[-1].pids() == []


def kill_agent(sight):
    psutil.Process(sight.statuses()[0]["pid"]).parent().kill()
    return True


def test_an_agent_that_is_killed_is_named_and_its_ranks_go_with_it(tmp_path, forked):
    record = run_fault(tmp_path, "hang@0", forked, kill_agent)
    assert (record["status"], record["reason_code"]) == ("failed", "failed.agent")
    assert record["reason"].startswith("the agent of the job was ended from outside by SIGKILL, in phase build")
    assert forked.handles[-1].pids() == []


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("kind", DEATHS)
def test_through_torchrun(tmp_path, kind, rank):
    record = run_fault(tmp_path, f"{kind}@{rank}", LocalLauncher(preload=False))
    if kind in VERDICTS:
        check_death(record, kind, rank)
    elif kind in HANGS:
        check_hang(record, "build", rank)
    else:
        check_survivor(record)
