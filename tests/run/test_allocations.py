import pytest

from benchrunner.launch.allocation import JobState
from benchrunner.run.allocations import Allocations, last_words


class Quiet:
    """A cluster that does what it is told."""

    def cancel(self, sweep, jobs):
        pass

    def logs(self, sweep, job):
        return f"{job} of {sweep.name}\n"


def state(phase, detail="", **more):
    return JobState(phase=phase, detail=detail, **more)


@pytest.fixture
def allocations(paths):
    """Of a sweep with these jobs, oldest first, in these phases."""

    def made(**phases):
        found = Allocations(Quiet(), paths, "slurm")
        found.states = {job: state(phase) if isinstance(phase, str) else phase for job, phase in phases.items()}
        return found

    return made


def test_the_newest_job_says_how_a_sweep_ended_unless_this_bench_cancelled_it(allocations):
    found = allocations(one="ended", other="ended", late="waiting")
    assert found.last() == "late"
    found.cancel()
    assert found.last() == "other"
    assert allocations().last() == ""


def test_where_all_were_cancelled_here_the_newest_is_named(allocations):
    found = allocations(one="running", other="running")
    found.cancel()
    assert found.last() == "other"


def test_the_last_words_are_of_the_job_that_is_asked_for(allocations, paths):
    assert allocations(one="ended", other="ended").last_words("one") == f"one of {paths.root.name}"


def test_a_log_without_a_word_is_said_to_be_empty():
    assert last_words("") == "its log is empty"


@pytest.mark.parametrize(
    ("phases", "text"),
    [
        ({}, "none"),
        ({"one": "ended", "other": state("running", "node7")}, "1 running, 1 ended"),
        ({"one": "waiting"}, "1 waiting"),
        (
            {"one": "waiting", "b": state("waiting", "Resources"), "c": state("waiting", "Priority")},
            "3 waiting (Priority, Resources)",
        ),
    ],
)
def test_a_few_words_say_where_the_jobs_are_and_why_they_wait(allocations, phases, text):
    assert allocations(**phases).describe() == text


def test_there_is_hope_as_long_as_one_job_may_run(allocations):
    hopeless = state("waiting", "PartitionTimeLimit", is_hopeless=True)
    assert allocations(one=hopeless).hopeless() == "PartitionTimeLimit"
    assert allocations(one=hopeless, other="waiting").hopeless() is None
    assert allocations(one="ended").hopeless() is None
