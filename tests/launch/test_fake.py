"""Scripted jobs leave what real ones leave, at the seconds of the script, on a clock that begins anywhere."""

import json
from dataclasses import asdict

import pytest

from benchrunner.core.errors import DamagedFile
from benchrunner.core.heartbeat import read_beat, read_progress
from benchrunner.core.paths import AttemptPaths
from benchrunner.core.rank_file import read_rank_file
from benchrunner.launch.fake import FakeLauncher, Script, VirtualClock
from benchrunner.launch.job import Job
from samples import CPU, make_cell

BEGIN_S = 1000.0
ERROR = {"kind": "oom", "type": "OutOfMemoryError", "message": "no more"}


@pytest.fixture
def start(tmp_path):
    """Starts a job of two ranks with such a script; its clock and handle."""

    def start(**script):
        launcher = FakeLauncher(lambda job: {"mine": Script(**script)}[job.marker])
        launcher.clock = VirtualClock(BEGIN_S)
        paths = AttemptPaths(tmp_path / "attempt-1")
        cell = make_cell(strategy="ddp")
        assert cell.sizes.world_size == 2
        handle = launcher.start(Job(cell=cell, paths=paths, devices=(), marker="mine", hardware=asdict(CPU)))
        assert launcher.handles == [handle] and handle.started_s == BEGIN_S
        return launcher.clock, handle

    return start


def ranks(handle):
    """(state, phase, result, error) of both ranks' files."""
    found = [read_rank_file(handle.job.paths.rank(rank)) for rank in range(2)]
    assert {(one.pid, one.marker) for one in found} == {(1, "mine")}
    return [(one.state, one.phase, one.result, one.error) for one in found]


def exits(handle):
    return json.loads(handle.job.paths.exits().read_text())["exits"]


def test_the_clock_does_what_is_due_once_and_in_order():
    clock, done = VirtualClock(BEGIN_S), []
    for at_s, name in ((BEGIN_S + 2, "second"), (BEGIN_S + 2.5, "third"), (BEGIN_S + 1, "first")):
        clock.at(at_s, lambda name=name: done.append((name, clock.now())))
    clock.sleep(1.0)
    assert done == [("first", BEGIN_S + 1)]
    clock.sleep(1.5)
    clock.sleep(10.0)
    assert done[1:] == [("second", BEGIN_S + 2.5), ("third", BEGIN_S + 2.5)]
    assert VirtualClock().now() == 0.0


def test_a_job_ends_after_its_seconds_with_the_result_of_every_rank(start):
    clock, handle = start(duration_s=5.0, result={"workload": "train"})
    clock.sleep(4.5)
    assert handle.poll() is None and ranks(handle) == [("running", "measure", None, None)] * 2
    clock.sleep(0.5)
    assert handle.poll() == 0 and handle.ended_s == BEGIN_S + 5
    assert ranks(handle) == [("done", "teardown", {"workload": "train"}, None)] * 2
    assert exits(handle) == []
    clock.sleep(9.0)
    assert (handle.poll(), handle.ended_s) == (0, BEGIN_S + 5)


def test_a_rank_may_leave_without_a_word(start):
    clock, handle = start(result=None, phase="build", phases={1: "warmup"})
    clock.sleep(1.0)
    assert handle.poll() == 0
    assert ranks(handle) == [("running", "build", None, None), ("running", "warmup", None, None)]


@pytest.mark.parametrize(
    ("script", "second", "codes"),
    [
        ({"errors": {1: ERROR}}, ("error", "measure", None, ERROR), []),
        ({"exits": {1: -9}}, ("running", "measure", None, None), [{"rank": 1, "code": -9}]),
        ({"errors": {1: ERROR}, "exits": {1: 3}}, ("error", "measure", None, ERROR), [{"rank": 1, "code": 3}]),
    ],
)
def test_where_a_rank_fails_none_has_a_result(start, script, second, codes):
    clock, handle = start(**script)
    assert ranks(handle) == [("running", "measure", None, None)] * 2, "its error is written at the end"
    clock.sleep(1.0)
    assert (handle.poll(), handle.ended_s) == (1, BEGIN_S + 1)
    assert ranks(handle) == [("running", "measure", None, None), second]
    assert exits(handle) == codes


def test_a_job_that_hangs_never_ends_and_has_its_errors_from_the_start(start):
    clock, handle = start(hangs=True, errors={0: ERROR})
    clock.sleep(1e6)
    assert handle.poll() is None and handle.ended_s is None
    assert ranks(handle) == [("error", "measure", None, ERROR), ("running", "measure", None, None)]
    assert [read_progress(handle.job.paths.beat(rank)) for rank in range(2)] == [0, 0]


@pytest.mark.parametrize(
    ("script", "issued", "progress"),
    [
        ({}, 3, 3),
        ({"beat_every_s": 2.0}, 1, 1),
        ({"only_draws": True}, 0, 3),
        ({"beats_until_s": 2.0}, 2, 2),
        ({"beats_until_s": 2.0, "hangs": True}, 2, 2),
        ({"hangs": True}, 0, 0),
        ({"beat_every_s": 4.0}, 0, 0),
    ],
)
def test_steps_that_ranks_issue_in_three_and_a_half_seconds(start, script, issued, progress):
    clock, handle = start(duration_s=100.0, **script)
    clock.sleep(3.5)
    handle.poll()
    beats = [handle.job.paths.beat(rank) for rank in range(2)]
    assert [(read_beat(path), read_progress(path)) for path in beats] == [(issued, progress)] * 2
    assert [path.exists() for path in beats] == [progress > 0] * 2


def test_the_last_step_is_issued_as_the_job_ends(start):
    clock, handle = start(duration_s=3.0)
    clock.sleep(3.0)
    handle.poll()
    clock.sleep(5.0)
    handle.poll()
    assert read_beat(handle.job.paths.beat(1)) == 3


@pytest.mark.parametrize("end", ["kill", "terminate"])
def test_a_job_that_is_ended_has_the_code_of_the_signal_and_stays_so(start, end):
    clock, handle = start(duration_s=5.0)
    clock.sleep(2.0)
    getattr(handle, end)()
    clock.sleep(9.0)
    handle.kill()
    assert (handle.poll(), handle.ended_s) == (-15, BEGIN_S + 2)
    assert ranks(handle)[0][0] == "running"


def test_who_has_ended_is_not_killed(start):
    clock, handle = start()
    clock.sleep(1.0)
    handle.poll()
    clock.sleep(1.0)
    handle.kill()
    assert (handle.poll(), handle.ended_s) == (0, BEGIN_S + 1)


def test_a_job_waits_in_the_queue_and_says_what_the_script_says(start):
    clock, handle = start(queued_s=2.0, pids=(4, 5), num_oom_kills=3)
    clock.sleep(1.5)
    assert handle.is_waiting()
    clock.sleep(0.5)
    assert not handle.is_waiting()
    handle.dump_stacks()
    handle.dump_stacks()
    assert (handle.pids(), handle.num_oom_kills(), handle.num_dumps) == ([4, 5], 3, 2)


def test_the_file_of_the_first_rank_is_garbage_for_a_while(start):
    clock, handle = start(duration_s=100.0, unreadable_s=(2.0, 4.0))
    readable = []
    for _ in range(5):
        handle.poll()
        try:
            readable.append(read_rank_file(handle.job.paths.rank(0)).marker == "mine")
        except DamagedFile:
            readable.append(False)
        assert read_rank_file(handle.job.paths.rank(1)).state == "running"
        clock.sleep(1.0)
    assert readable == [True, True, False, False, True]


def test_a_job_that_ends_while_its_file_is_garbage_leaves_what_it_ended_with(start):
    clock, handle = start(duration_s=3.0, unreadable_s=(1.0, 5.0), errors={0: ERROR})
    clock.sleep(2.0)
    handle.poll()
    clock.sleep(1.0)
    assert handle.poll() == 1
    with pytest.raises(DamagedFile):
        read_rank_file(handle.job.paths.rank(0))
    clock.sleep(2.0)
    handle.poll()
    assert [state for state, *_ in ranks(handle)] == ["error", "running"]


def test_what_a_script_raises_leaves_nothing(tmp_path):
    launcher = FakeLauncher(lambda job: Script(raises=OSError("no such node")))
    job = Job(cell=make_cell(), paths=AttemptPaths(tmp_path / "a"), devices=(), marker="m", hardware=asdict(CPU))
    with pytest.raises(OSError, match="no such node"):
        launcher.start(job)
    assert (launcher.handles, list(tmp_path.iterdir())) == ([], [])
    assert (launcher.is_local, launcher.num_nodes) == (True, 1)
