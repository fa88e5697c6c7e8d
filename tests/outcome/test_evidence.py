"""What is read of the files that an attempt leaves, and what of them is not."""

import json
import struct
from dataclasses import asdict

import pytest

from benchrunner.core.paths import AttemptPaths
from benchrunner.core.rank_file import RankFile
from benchrunner.outcome import evidence as module
from benchrunner.outcome.evidence import TAIL_BYTES, TAIL_LINES, Stop, gather, stack


@pytest.fixture
def paths(tmp_path):
    return AttemptPaths(tmp_path)


def write_exits(paths, node, **codes):
    exits = [{"rank": int(rank.removeprefix("r")), "code": code} for rank, code in codes.items()]
    paths.exits(node).write_text(json.dumps({"exits": exits}))


def test_what_the_runner_knows_of_the_job_is_kept(paths):
    stop = Stop(kind="stuck")
    for rank in range(2):
        paths.beat(rank).write_bytes(struct.pack("<Q", 7 + rank))
        paths.out(rank).write_text(f"out of {rank}\n")
    found = gather(paths, 3, code=5, stop=stop, num_oom_kills=2)
    assert (found.world_size, found.code, found.stop, found.num_oom_kills) == (3, 5, stop, 2)
    assert found.beats == {0: 7, 1: 8, 2: 0} and found.directory == paths.root.name
    assert (found.tail(0, "out"), found.tail(1, "out"), found.tail(2, "out")) == (["out of 0"], ["out of 1"], ())
    assert gather(paths, 1).num_oom_kills == 0


def test_the_exits_of_all_nodes_count_and_a_damaged_file_of_one_is_named(paths):
    write_exits(paths, 0, r0=1)
    paths.exits(1).write_text("{")
    write_exits(paths, 2, r5=-9)
    found = gather(paths, 6)
    assert found.exits == {0: 1, 5: -9}
    assert len(found.damaged) == 1 and found.damaged[0].startswith("exits1.json is damaged: ")


def test_what_is_wrong_with_a_rank_file_is_said(paths):
    paths.rank(0).write_text(json.dumps(asdict(RankFile(rank=1, pid=1))))
    assert gather(paths, 1).unreadable == {0: "it is the file of rank 1"}


def test_secrets_are_taken_out_of_rank_files_that_are_small_enough_to_be_read(paths, monkeypatch):
    monkeypatch.setenv("SOME_TOKEN", "hidden-42")
    error = {"kind": "exception", "code": None, "type": "E", "message": "of hidden-42", "at": 1.0}
    text = json.dumps(asdict(RankFile(rank=0, pid=1, error=error)))
    paths.rank(0).write_text(text)
    gather(paths, 1)
    assert "hidden" not in paths.rank(0).read_text()
    monkeypatch.setattr(module, "RANK_FILE_BYTES", len(text) - 1)
    paths.rank(0).write_text(text)
    gather(paths, 1)
    assert paths.rank(0).read_text() == text


def test_every_process_that_torchrun_ended_is_known(paths):
    for rank in range(3):
        paths.rank(rank).write_text(json.dumps(asdict(RankFile(rank=rank, pid=10 + rank))))
    paths.agent_log.write_text("".join(f"Sending process {pid} closing signal SIGTERM\n" for pid in (10, 12)))
    assert gather(paths, 3).told_to_stop == {0, 2}


def test_the_end_of_a_long_log_is_read(paths):
    lines = [f"  line {number}" for number in range(TAIL_BYTES)]
    paths.agent_log.write_bytes(b"\xff\n" + "\n".join(lines).encode() + b"   \n\xff\n")
    tail = gather(paths, 1).tails["agent.log"]
    assert tail == [*lines[-TAIL_LINES + 1 :], "�"]


def test_a_stack_at_the_end_of_a_log_is_whole(paths):
    frames = [f'  File "x.py", line {line} in f' for line in range(5 * TAIL_LINES)]
    dump = ["Current thread 0x00007f02 (most recent call first):", *frames]
    paths.err(0).write_text("\n".join(["before", *dump]))
    tail = gather(paths, 1).tail(0)
    assert tail == dump[: 4 * TAIL_LINES]
    assert stack([*dump[:2], "Extension modules: x", "File after"]) == [frames[0].strip()]
