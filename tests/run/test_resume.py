import os
import signal
import subprocess

import pytest

from benchrunner.launch.fake import FakeLauncher, Script
from benchrunner.launch.processes import MARKER_VARIABLE
from benchrunner.run.attempts import Attempts
from benchrunner.run.options import RunOptions
from benchrunner.run.resume import recover
from benchrunner.run.schedule import Pool
from fake_sweeps import OK, cells
from samples import CPU


def attempt(paths, script):
    """An attempt at a cell whose record was never written: the cell, and the job."""
    (planned,) = cells(1)
    job = Attempts(paths, CPU, RunOptions(fault=None), Pool(1), names_devices=False).next_job(planned, (0,))
    launcher = FakeLauncher(lambda job: script)
    handle = launcher.start(job)
    launcher.clock.sleep(2.0)
    handle.poll()
    return planned, job


@pytest.fixture
def marked():
    """Starts a process that carries a marker, as what a dead sweep leaves running does."""
    left = []

    def start(marker):
        left.append(subprocess.Popen(["sleep", "600"], env=os.environ | {MARKER_VARIABLE: marker}))
        return left[-1]

    yield start
    for process in left:
        process.kill()
        process.wait()


@pytest.mark.parametrize("script", [OK, Script(hangs=True)])
def test_what_a_dead_sweep_left_running_is_ended(paths, marked, script):
    planned, job = attempt(paths, script)
    left, other = marked(job.marker), marked("of another sweep")
    recover(planned, paths, note=pytest.fail)
    assert left.wait(timeout=30) == -signal.SIGKILL
    assert other.poll() is None


def test_an_attempt_that_reached_its_end_is_taken_over_once(paths):
    planned, job = attempt(paths, OK)
    evidence, found = recover(planned, paths, note=pytest.fail)
    assert evidence.is_complete() and (found.number, found.started_at) == (1, job.started_at)
    assert recover(planned, paths, known=1, note=pytest.fail) is None


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
