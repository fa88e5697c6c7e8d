"""A sweep that another bench runs here is followed from its files, and nothing of it is changed."""

import os
import signal
import time

import filelock
import pytest

from benchrunner.core.files import write_json
from benchrunner.core.paths import SweepPaths
from benchrunner.core.record import record_to_dict
from benchrunner.run import observe
from benchrunner.run.progress import Progress
from benchrunner.store.plan_file import write_plan
from fake_sweeps import cells, make_plan
from samples import make_record


class ScriptedClock:
    """Each sleep does what another process would have done meanwhile."""

    def __init__(self, *steps):
        self.steps = list(steps)

    def now(self):
        return 0.0

    def sleep(self, seconds):
        self.steps.pop(0)()


@pytest.fixture
def planned():
    return cells(2)


@pytest.fixture
def paths(tmp_path, planned):
    return SweepPaths(write_plan(make_plan(planned), tmp_path / "outputs"))


@pytest.fixture
def lock(paths):
    """What the bench that runs the sweep holds."""
    with filelock.FileLock(paths.lock, timeout=0) as lock:
        yield lock


def begin(paths, planned, phase="measure", age_s=65):
    status = {"rank": 0, "pid": 1, "phase": phase, "phase_started_at": time.time() - age_s}
    place = paths.cell(planned.place).attempt(1)
    place.root.mkdir(parents=True)
    write_json(place.rank(0), status)


def end(paths, planned):
    paths.cell(planned.place).root.mkdir(parents=True, exist_ok=True)
    write_json(paths.cell(planned.place).record, record_to_dict(make_record(planned.cell)))


def test_records_are_reported_as_they_come_until_the_other_bench_has_ended(paths, planned, lock, monkeypatch, capsys):
    seen = []
    monkeypatch.setattr(Progress, "report_running", lambda self, running: seen.append(list(running)))
    end(paths, planned[1])
    steps = (lambda: begin(paths, planned[0]), lambda: None, lambda: end(paths, planned[0]), lock.release)
    summary = observe.observe(make_plan(planned), paths, ScriptedClock(*steps))
    said = capsys.readouterr().err
    assert "1 of 2 cells have their records" in said and "[1/1] ok " in said and said.count("] ok ") == 1
    assert [len(running) for running in seen] == [0, 1, 1, 0, 0] and "(measuring 1:05)" in seen[1][0]
    assert summary.counts == {"ok": 2} and summary.exit_code == 0


def test_nothing_is_changed_and_a_sweep_that_nobody_runs_is_not_waited_for(paths, planned):
    end(paths, planned[0])
    before = {path: path.stat().st_mtime_ns for path in paths.root.rglob("*")}
    summary = observe.observe(make_plan(planned), paths, ScriptedClock())
    assert {path: path.stat().st_mtime_ns for path in paths.root.rglob("*")} == before
    assert summary.counts == {"ok": 1, "skipped": 1}


def test_a_signal_ends_the_watching_alone(paths, planned, lock):
    step = ScriptedClock(lambda: os.kill(os.getpid(), signal.SIGINT))
    summary = observe.observe(make_plan(planned), paths, step)
    assert summary.interrupted_by == signal.SIGINT and lock.is_locked and observe.is_run(paths)
