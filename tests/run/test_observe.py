"""A sweep that another bench runs here is followed from its files, and nothing of it is changed."""

import os
import signal
import time

import filelock
import pytest

from benchrunner.core.files import write_json
from benchrunner.core.paths import SweepPaths
from benchrunner.core.record import record_to_dict
from benchrunner.plan.labels import short_labels
from benchrunner.run import interrupts, observe
from benchrunner.run.progress import Progress
from benchrunner.run.searches import Searches
from benchrunner.store.plan_file import write_plan
from fake_sweeps import cells, make_plan
from samples import H200, make_cell, make_record, plan_cell


class ScriptedClock:
    """Each sleep does what another process would have done meanwhile."""

    def __init__(self, *steps):
        self.steps = list(steps)

    def now(self):
        return 0.0

    def sleep(self, seconds):
        assert seconds > 0
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


def begin(paths, planned, *phases, age_s=65):
    """One phase a rank."""
    place = paths.cell(planned.place).attempt(1)
    place.root.mkdir(parents=True)
    for rank, phase in enumerate(phases or ("measure",)):
        status = {"rank": rank, "pid": 1, "phase": phase, "phase_started_at": time.time() - age_s}
        write_json(place.rank(rank), status)


def end(paths, planned, *status):
    paths.cell(planned.place).root.mkdir(parents=True, exist_ok=True)
    write_json(paths.cell(planned.place).record, record_to_dict(make_record(planned.cell, *status)))


@pytest.fixture
def seen(monkeypatch):
    """What the live line said, look after look."""
    found = []
    monkeypatch.setattr(Progress, "report_running", lambda self, running: found.append(list(running)))
    return found


def test_records_are_reported_as_they_come_until_the_other_bench_has_ended(paths, planned, lock, seen, capsys):
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


def test_cells_are_called_as_the_plan_calls_them_and_failures_say_where_to_look(paths, lock, seen, capsys):
    planned = cells(3)
    labels = short_labels(planned)
    end(paths, planned[0])
    steps = (
        lambda: begin(paths, planned[1]), lambda: end(paths, planned[1], "failed", "failed.exit", "no"), lock.release,
    )  # fmt: skip
    observe.observe(make_plan(planned), paths, ScriptedClock(*steps))
    said = capsys.readouterr().err
    label = labels[planned[1].cell.slug]
    assert "1 of 3 cells have their records" in said and seen[1] == [f"{label} (measuring 1:05)"]
    assert f"[1/2] failed      {label}  failed.exit: no" in said
    assert f"log: {paths.cell(planned[1].place).attempt(1).root}/" in said


@pytest.mark.parametrize(
    ("phases", "said"),
    [
        (("compile",), "first step 1:05"),
        (("measure", "build"), "building 1:05"),
        (("build", "measure"), "building 1:05"),
    ],
)
def test_of_several_ranks_the_one_that_the_others_wait_for_is_shown(paths, lock, seen, phases, said):
    (planned,) = cells(1, devices=len(phases))
    begin(paths, planned, *phases)
    observe.observe(make_plan([planned]), paths, ScriptedClock(lock.release))
    assert seen[0][0].endswith(f" ({said})")


def test_probes_are_reported_as_they_are_added(paths, lock, capsys):
    plan = make_plan([plan_cell(make_cell(leaves={"micro_batch_size": "max", "memory_limit_gib": 40}))], H200)
    found = []

    def probe():
        found.extend(probe for _, probe in Searches(plan, paths, {}).due(plan.cells, []))

    observe.observe(plan, paths, ScriptedClock(probe, lambda: end(paths, found[0]), lock.release))
    said = capsys.readouterr().err
    label = short_labels([*plan.cells, *found])[found[0].cell.slug]
    assert f"[1/2] ok          {label}  " in said


def test_records_that_cannot_be_read_are_named_and_not_reported(paths, planned, lock, capsys):
    def damage(one):
        end(paths, one)
        paths.cell(one.place).record.write_text("{")

    damage(planned[0])
    summary = observe.observe(make_plan(planned), paths, ScriptedClock(lambda: damage(planned[1]), lock.release))
    said = capsys.readouterr().err
    assert all(f"cells/{one.place}/record.json is damaged" in said for one in planned)
    assert summary.counts == {"skipped": 2}


def test_where_nothing_can_be_locked_nobody_is_waited_for(paths):
    paths.lock.mkdir()
    assert not observe.is_run(paths)


def test_a_second_signal_ends_the_watching_at_once(paths, planned, lock, monkeypatch):
    exits = []
    monkeypatch.setattr(interrupts.os, "_exit", exits.append)

    def twice():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)

    observe.observe(make_plan(planned), paths, ScriptedClock(twice))
    assert exits == [143]


def test_a_signal_ends_the_watching_alone(paths, planned, lock):
    step = ScriptedClock(lambda: os.kill(os.getpid(), signal.SIGINT))
    summary = observe.observe(make_plan(planned), paths, step)
    assert summary.interrupted_by == signal.SIGINT and lock.is_locked and observe.is_run(paths)
