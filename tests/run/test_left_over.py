import pytest

from benchrunner.launch.allocation import JobState
from benchrunner.run.allocations import Allocations
from benchrunner.run.left_over import outcome_of
from benchrunner.store.workers import WorkerFile, write_worker


class Ended:
    """A cluster whose jobs have ended so, by their ids."""

    def __init__(self, **ends):
        self.ends = ends

    def poll(self, sweep, jobs):
        return {job: JobState(phase="ended", end=self.ends[job]) for job in jobs}

    def logs(self, sweep, job):
        return f"{job} of {sweep.name} says why\n"


@pytest.fixture
def left(paths):
    """The reason for a cell that these jobs have left, the last one last; `one` is the worker of the job `first`."""
    write_worker(paths, WorkerFile(worker="one", job="first"))

    def outcome(owner, **ends):
        allocations = Allocations(Ended(**ends), paths, "slurm")
        allocations.states = dict.fromkeys(ends, JobState(phase="running"))
        allocations.poll()
        return outcome_of(owner, allocations, paths)

    return outcome


def test_a_cell_at_work_ended_as_the_allocation_of_its_worker_did(left):
    found = left("one", first="preempted", last="cancelled")
    assert (found.status, found.reason_code) == ("skipped", "skipped.preempted")
    assert found.reason == "it was at work when its allocation was preempted (job first)"


@pytest.mark.parametrize("owner", [None, "somebody"])
def test_of_any_other_cell_the_last_allocation_decides(left, owner):
    assert left(owner, first="preempted", last="cancelled").reason_code == "skipped.cancelled"


def test_a_cell_that_nobody_had_was_not_started(left):
    reason = "not started: no allocation had time enough for it (launcher.time_min) (job last)"
    assert left(None, first="preempted", last="completed").reason == reason


def test_an_allocation_that_failed_is_asked_for_its_last_words(left, paths):
    found = left("one", first="failed", last="cancelled")
    assert found.reason.endswith(f"its allocation failed (job first): first of {paths.root.name} says why")


@pytest.mark.parametrize(("owner", "ends"), [(None, {}), ("one", {"last": "unknown"})])
def test_an_end_that_nobody_can_tell_is_a_failure(left, owner, ends):
    found = left(owner, **ends)
    assert (found.status, found.reason_code) == ("failed", "failed.allocation")
    assert "the cluster cannot say how" in found.reason


def test_without_any_allocation_there_is_no_job_to_name_or_to_ask(left):
    assert left(None).reason.endswith("(job unknown)")
