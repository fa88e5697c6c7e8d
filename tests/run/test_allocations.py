import pytest

from benchrunner.core.errors import UsageError
from benchrunner.launch.allocation import JobState, Request
from benchrunner.run.allocations import Allocations, last_words
from benchrunner.store.allocations_file import read_jobs
from benchrunner.store.workers import WorkerFile, is_gone, write_worker


class Quiet:
    """A cluster that does what it is told; every job that it is asked about runs."""

    def __init__(self, most=9):
        self.most, self.submitted, self.cancelled = most, [], []

    def submit(self, sweep, request):
        if len(self.submitted) == self.most:
            raise UsageError("no more")
        self.submitted.append((sweep, request))
        return f"job{len(self.submitted)}"

    def poll(self, sweep, jobs):
        return {job: state("running", sweep.name) for job in jobs}

    def cancel(self, sweep, jobs):
        self.cancelled.append((sweep, jobs))

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


REQUEST = Request(name="bench", command=["bench", "work"])


def test_each_job_has_a_name_of_its_own_and_comes_beside_those_of_before(paths):
    cluster = Quiet()
    found = Allocations(cluster, paths, "slurm")
    assert found.describe() == "none" and found.ends() == set()
    found.submit(REQUEST, 1)
    found.submit(REQUEST, 2)
    assert list(found.states) == read_jobs(paths, "slurm") == ["job1", "job2", "job3"]
    assert found.describe() == "3 waiting" and {sweep for sweep, _ in cluster.submitted} == {paths.root}
    names = {request.name for _, request in cluster.submitted}
    assert len(names) == 3 and all(name.startswith("bench-") for name in names)


def test_where_the_cluster_refuses_one_those_before_it_are_cancelled(paths):
    cluster = Quiet(most=2)
    with pytest.raises(UsageError, match="no more"):
        Allocations(cluster, paths, "slurm").submit(REQUEST, 3)
    assert cluster.cancelled == [(paths.root, ["job1", "job2"])]


def test_jobs_of_an_earlier_run_are_taken_over(paths):
    Allocations(Quiet(), paths, "slurm").submit(REQUEST, 2)
    found = Allocations(Quiet(), paths, "slurm")
    assert found.adopt() == ["job1", "job2"] and found.describe() == "2 running"
    assert {one.detail for one in found.states.values()} == {paths.root.name}


def test_who_worked_in_a_job_that_has_ended_is_gone(paths):
    for worker, job, doing in (("dead", "one", "working"), ("left", "one", "left"), ("alive", "other", "working")):
        write_worker(paths, WorkerFile(worker=worker, job=job, state=doing))
    cluster = Quiet()
    cluster.poll = lambda sweep, jobs: {"one": state("ended"), "other": state("running")}
    found = Allocations(cluster, paths, "slurm")
    found.states = dict.fromkeys(("one", "other"), state("running"))
    found.poll()
    assert [is_gone(paths, worker) for worker in ("dead", "left", "alive")] == [True, False, False]


def test_what_waits_can_be_cancelled_alone(paths):
    cluster = Quiet()
    found = Allocations(cluster, paths, "slurm")
    found.states = {"one": state("running"), "other": state("waiting"), "last": state("ended")}
    found.cancel(["waiting"])
    found.cancel()
    assert cluster.cancelled == [(paths.root, ["other"]), (paths.root, ["one", "other"])]


def test_a_question_is_about_jobs_that_have_not_ended_and_the_others_are_kept(allocations, paths):
    found = allocations(one="ended", other="waiting")
    found.poll()
    assert found.states == {"one": state("ended"), "other": state("running", paths.root.name)}


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
