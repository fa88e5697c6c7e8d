import json
import os
import shutil
import signal
import subprocess
from dataclasses import replace

import pytest

from benchrunner.core.record import record_to_dict
from benchrunner.launch.fake import FakeLauncher, Script
from benchrunner.launch.job import write_job
from benchrunner.run.attempts import Attempts
from benchrunner.run.options import RunOptions
from benchrunner.run.resume import Selection, left_to_do, recover
from benchrunner.run.schedule import Pool
from fake_sweeps import OK, cells, record, run
from samples import CPU, H200, make_record, plan_cell


def attempt(paths, script):
    """An attempt at a cell whose record was never written: the cell, and the job."""
    (planned,) = cells(1)
    job = Attempts(paths, CPU, RunOptions(fault=None), Pool(1), names_devices=False).next_job(planned, (0,))
    launcher = FakeLauncher(lambda job: script)
    handle = launcher.start(job)
    launcher.clock.sleep(2.0)
    handle.poll()
    return planned, job


@pytest.mark.parametrize("script", [OK, Script(hangs=True)])
def test_what_a_dead_sweep_left_running_is_ended(paths, marked, script):
    planned, job = attempt(paths, script)
    left, other = marked(job.marker), marked("of another sweep")
    recover(planned, paths, note=pytest.fail)
    assert left.wait(timeout=30) == -signal.SIGKILL
    assert other.poll() is None


def test_the_copy_of_a_sweep_at_work_leaves_its_processes_alone(paths, monkeypatch, marked):
    """Its attempts are those of the sweep that it was copied from, whose `bench` is alive."""
    planned, job = attempt(paths, Script(hangs=True))
    monkeypatch.setenv("BENCH_PARENT_PID", str(os.getpid()))
    at_work = marked(job.marker)
    assert recover(planned, paths, note=pytest.fail) is None
    with pytest.raises(subprocess.TimeoutExpired):
        at_work.wait(timeout=0.3)
    monkeypatch.setenv("BENCH_PARENT_PID", "1")
    left = marked(job.marker)
    at_work.kill()
    at_work.wait()
    recover(planned, paths, note=pytest.fail)
    assert left.wait(timeout=30) == -signal.SIGKILL


def test_an_attempt_that_reached_its_end_is_taken_over_once(paths):
    planned, job = attempt(paths, OK)
    evidence, found = recover(planned, paths, note=pytest.fail)
    assert evidence.is_complete() and (found.number, found.started_at) == (1, job.started_at)
    assert recover(planned, paths, known=1, note=pytest.fail) is None


def test_what_is_taken_over_is_known_as_it_was_run(paths):
    (planned,) = cells(1, devices=2)
    attempts = Attempts(paths, H200, RunOptions(fault="hang@1"), Pool(4), names_devices=True)
    job = attempts.next_job(planned, (2, 3))
    launcher = FakeLauncher(lambda job: OK)
    handle = launcher.start(job)
    launcher.clock.sleep(2.0)
    handle.poll()
    for path, at_s in ((job.paths.cell, 1000), (job.paths.rank(0), 1007.5)):
        os.utime(path, (at_s, at_s))
    _, found = recover(planned, paths, note=pytest.fail)
    assert (found.wall_s, list(found.devices), found.fault) == (7.5, [2, 3], "hang@1")
    assert found.hardware["peak_flops"] == H200.peak_flops
    os.utime(job.paths.cell, (2000, 2000))
    assert recover(planned, paths, note=pytest.fail)[1].wall_s == 0.0, "a clock that was set back"


def test_an_attempt_at_another_cell_is_named_and_not_taken_over(paths):
    planned, _ = attempt(paths, OK)
    other = replace(planned, cell=replace(planned.cell, cell_id="0" * 12))
    notes = []
    assert recover(other, paths, note=notes.append) is None
    assert notes[0].endswith(f"its cell's cell_id is {planned.cell.cell_id}, the plan's {'0' * 12}")


@pytest.mark.parametrize(
    ("status", "flags", "keep_inferred", "is_left"),
    [
        ("oom", ["inferred"], True, False),
        ("oom", ["inferred"], False, True),
        ("oom", [], False, False),
        ("failed", [], True, True),
    ],
)
def test_which_verdicts_are_kept(status, flags, keep_inferred, is_left):
    (planned,) = cells(1)
    records = {planned.place: make_record(planned.cell, status, f"{status}.x", flags=flags)}
    assert left_to_do([planned], records, CPU, keep_inferred=keep_inferred) == [planned] * is_left
    if keep_inferred:
        assert left_to_do([planned], records, CPU) == [planned] * is_left


@pytest.mark.parametrize(("devices", "hardware", "is_left"), [(4, H200, True), (8, H200, False), (4, CPU, False)])
def test_what_was_skipped_for_devices_is_left_where_they_are(devices, hardware, is_left):
    planned = plan_cell(cells(1, devices=devices)[0].cell, "skipped", "skipped.devices", "too few")
    assert left_to_do([planned], {}, hardware) == [planned] * is_left


def test_cells_are_chosen_by_how_they_ended():
    (planned,) = cells(1)
    failed = make_record(planned.cell, "failed", "failed.exit")
    takes = [Selection(statuses=frozenset({status})).takes for status in ("failed", "skipped")]
    assert [one(planned, failed) for one in takes] == [True, False]
    assert [one(planned, None) for one in takes] == [False, True], "a cell without a record is skipped"


@pytest.mark.parametrize("name", ["attempt-x", "attempt-01", "attempt-3.bak", "attempt-9", "attempt-٣", "attempt-7"])
def test_what_else_lies_among_the_attempts_hides_none(paths, name):
    """`attempt-9` is a file, `attempt-7` the folder of a job that never began."""
    planned, job = attempt(paths, OK)
    beside = job.paths.root.with_name(name)
    beside.touch() if name == "attempt-9" else beside.mkdir()
    _, found = recover(planned, paths, note=pytest.fail)
    assert found.number == 1


def test_every_attempt_without_a_record_is_ended(paths, marked):
    planned, job = attempt(paths, Script(hangs=True))
    newer = job.paths.root.with_name("attempt-2")
    shutil.copytree(job.paths.root, newer)
    left = marked(job.marker)
    (newer / "cell.json").unlink()
    recover(planned, paths, note=pytest.fail)
    assert left.wait(timeout=30) == -signal.SIGKILL


def test_an_attempt_that_did_not_is_left(paths):
    planned, job = attempt(paths, Script(hangs=True))
    assert recover(planned, paths, note=pytest.fail) is None
    job.paths.cell.unlink()
    assert recover(planned, paths, note=pytest.fail) is None


@pytest.mark.parametrize("text", ["{", '{"marker": 7}'])
def test_a_damaged_job_is_named_and_nothing_is_taken_over(paths, text):
    planned, job = attempt(paths, OK)
    job.paths.cell.write_text(text)
    notes = []
    assert recover(planned, paths, note=notes.append) is None
    (note,) = notes
    assert note.startswith(f"cells/{planned.cell.slug}/attempt-1/cell.json is damaged: ")


def test_the_cold_cache_of_a_dead_sweep_is_removed(paths):
    planned, job = attempt(paths, Script(hangs=True))
    job.paths.cache.mkdir()
    recover(planned, paths, note=pytest.fail)
    assert not job.paths.cache.exists()


def test_what_an_earlier_launch_measured_is_never_counted_as_this_ones(paths):
    """`attempt-1` was deleted and `attempt-2` kept, with every rank at its end; the job of the resume died at once."""
    planned, job = attempt(paths, OK)
    first, second = job.paths.root, job.paths.root.with_name("attempt-2")
    first.rename(second)
    conclude(paths, planned, 2, "failed")
    _, launcher = run(paths, [planned], Script(result=None), resume=True)
    made = record(paths, planned)
    assert made["status"] == "failed" and made["attempt"] == launcher.handles[0].job.attempt == 3
    assert made["metrics"] == {}


@pytest.mark.parametrize(
    ("names", "known", "number"),
    [
        ((), 0, 1),
        (("attempt-2",), 0, 3),
        (("attempt-9", "attempt-10"), 0, 11),
        ((), 4, 5),
        (("attempt-x",), 0, 1),
    ],
)
def test_attempts_are_numbered_above_all_that_there_were(paths, names, known, number):
    (planned,) = cells(1)
    for name in names:
        (paths.cell(planned.cell.slug).root / name).mkdir(parents=True)
    attempts = Attempts(paths, CPU, RunOptions(fault=None), Pool(1), names_devices=False)
    assert attempts.next_job(planned, (0,), above=known).attempt == number


def test_a_job_is_never_written_into_the_folder_of_another(paths):
    _, job = attempt(paths, OK)
    with pytest.raises(FileExistsError):
        write_job(job)


def test_rank_files_of_another_launch_are_not_taken_over(paths):
    planned, job = attempt(paths, OK)
    text = job.paths.cell.read_text()
    job.paths.cell.write_text(text.replace(job.marker, "0" * 32))
    assert recover(planned, paths, note=pytest.fail) is None


def conclude(paths, planned, number, status):
    """A record of an attempt, as an earlier run wrote it."""
    made = replace(make_record(planned.cell, status, f"{status}.exit", "it left"), attempt=number)
    paths.cell(planned.cell.slug).record.write_text(json.dumps(record_to_dict(made)))
