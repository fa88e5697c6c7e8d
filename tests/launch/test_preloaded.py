"""Jobs whose agents are forked from a process that is kept: here one with a few lines in the place of torch."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from dataclasses import asdict
from types import SimpleNamespace

import pytest

from benchrunner.core.job_file import MARKER_VARIABLE, NO_MARKER
from benchrunner.core.paths import AttemptPaths
from benchrunner.launch import local, preloaded
from benchrunner.launch.job import Job
from benchrunner.launch.local import LocalLauncher
from benchrunner.launch.processes import marked_pids
from samples import CPU, make_cell

STAND_IN = """
import os, sys, time
from benchrunner.worker import agent, preloaded
preloaded.MODULES = ("json",)
def lead(attempt_dir, num_ranks):
    print(f"agent of {num_ranks}, {os.environ['OMP_NUM_THREADS']} threads", flush=True)
    open(attempt_dir + "/up", "w").close()
    while not os.path.exists(attempt_dir + "/end") and os.getppid() != 1:  # nobody is left to end it
        time.sleep(0.01)
    return 7
vars(agent)["lead_forked"] = lead
preloaded.main(sys.argv[-1])
"""
BROKEN = "import sys; sys.exit('a library that breaks as it is imported')"


@pytest.fixture
def launcher(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    made = LocalLauncher()
    yield made
    made.close()


@pytest.fixture
def stand_in(monkeypatch):
    """Puts a script in the place of the worker's module; what is started is kept."""
    started = []
    popen = subprocess.Popen

    def put(script):
        def start(command, **how):
            if "benchrunner.worker.preloaded" in command:
                command = [sys.executable, "-c", script, command[-1]]
            else:
                command = [sys.executable, "-c", "import os; print('started anew', os.environ['BENCH_ATTEMPT'])"]
            started.append(popen(command, **how))
            return started[-1]

        monkeypatch.setattr(preloaded.subprocess, "Popen", start)

    put.started = started
    return put


def make_job(tmp_path, name="a", **axes):
    return Job(
        cell=make_cell(**axes),
        paths=AttemptPaths(tmp_path / name / "attempt-1"),
        devices=(),
        marker=uuid.uuid4().hex,
        hardware=asdict(CPU),
    )


def wait_for(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def is_up(job):
    return (job.paths.root / "up").exists()


def ended(handle):
    wait_for(lambda: handle.poll() is not None)
    return handle.poll()


def test_one_process_forks_the_agents_of_many_jobs(tmp_path, launcher, stand_in):
    stand_in(STAND_IN)
    jobs = [make_job(tmp_path, name) for name in "ab"]
    handles = [launcher.start(job) for job in jobs]
    wait_for(lambda: all(map(is_up, jobs)))
    assert [handle.poll() for handle in handles] == [None, None]
    for job, handle in zip(jobs, handles, strict=True):
        (pid,) = handle.pids()
        assert marked_pids(job.marker) == [pid] and os.getsid(pid) == pid
        (job.paths.root / "end").touch()
        assert ended(handle) == 7
        assert job.paths.agent_log.read_text() == "agent of 1, 1 threads\n"
    assert len(stand_in.started) == 1 and stand_in.started[0].poll() is None
    launcher.close()
    assert stand_in.started[0].poll() is not None


def test_what_libraries_read_as_they_load_is_never_shared(tmp_path, launcher, stand_in, monkeypatch):
    """OMP_NUM_THREADS among it; a process that is not needed goes when there would be too many."""
    stand_in(STAND_IN)
    for number, threads in enumerate(["1", "2", "1", "3"]):
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        job = make_job(tmp_path, str(number))
        handle = launcher.start(job)
        wait_for(lambda job=job: is_up(job))
        (job.paths.root / "end").touch()
        assert ended(handle) == 7
        assert f"{threads} threads" in job.paths.agent_log.read_text()
    assert [process.poll() is None for process in stand_in.started] == [True, False, True]


def test_the_devices_of_a_job_need_no_process_of_their_own(tmp_path, launcher, stand_in, monkeypatch):
    stand_in(STAND_IN)
    for visible in ("0", "1"):
        monkeypatch.setattr(local, "job_environment", environment_with(CUDA_VISIBLE_DEVICES=visible))
        job = make_job(tmp_path, visible)
        launcher.start(job)
        wait_for(lambda job=job: is_up(job))
    assert len(stand_in.started) == 1


def environment_with(**variables):
    return lambda job, environ: dict(environ) | variables | {MARKER_VARIABLE: job.marker}


def test_where_the_process_dies_its_jobs_end_and_the_next_one_gets_another(tmp_path, launcher, stand_in):
    stand_in(STAND_IN)
    first, second = make_job(tmp_path, "a"), make_job(tmp_path, "b")
    handle = launcher.start(first)
    wait_for(lambda: is_up(first))
    stand_in.started[0].kill()
    assert ended(handle) == -signal.SIGKILL and handle.pids() == []
    launcher.start(second)
    wait_for(lambda: is_up(second))
    assert len(stand_in.started) == 2


def test_where_nothing_can_be_loaded_agents_are_started_anew(tmp_path, launcher, stand_in):
    stand_in(BROKEN)
    for name in "ab":
        job = make_job(tmp_path, name)
        assert ended(launcher.start(job)) == 0
        assert job.paths.agent_log.read_text() == f"started anew {job.marker}\n"
    assert len(stand_in.started) == 3, "it is not tried again for each cell"


def test_preloading_can_be_left(tmp_path, stand_in):
    stand_in(STAND_IN)
    job = make_job(tmp_path)
    assert ended(LocalLauncher(preload=False).start(job)) == 0
    assert job.paths.agent_log.read_text() == f"started anew {job.marker}\n"


def test_a_job_that_is_told_to_end_while_it_waits_for_the_imports_never_begins(tmp_path, launcher, stand_in):
    stand_in("import time; time.sleep(600)")
    job = make_job(tmp_path)
    handle = launcher.start(job)
    assert handle.poll() is None
    handle.terminate()
    assert ended(handle) == -signal.SIGTERM
    assert not job.paths.agent_log.exists() and len(stand_in.started) == 1


def test_told_to_end_an_agent_ends(tmp_path, launcher, stand_in):
    stand_in(STAND_IN)
    job = make_job(tmp_path)
    handle = launcher.start(job)
    wait_for(lambda: is_up(job))
    handle.terminate()
    assert ended(handle) == -signal.SIGTERM and handle.pids() == []


@pytest.mark.parametrize(("code", "told"), [(None, [(1234, signal.SIGTERM)]), (0, [])])
def test_an_agent_that_has_ended_is_not_told_again(tmp_path, monkeypatch, code, told):
    """Its process id may be another's by then."""

    class Process:
        def ask(self, job, variables, log):
            os.close(log)
            return 5

        def pid(self, number):
            return {5: 1234}.get(number)

        def code(self, number):
            return {5: code}.get(number)

    asked = []

    def kill(*how):
        asked.append(how)
        raise ProcessLookupError

    monkeypatch.setattr(preloaded.os, "kill", kill)
    agent = preloaded.ForkedAgent(Process(), make_job(tmp_path), {}, None)
    agent.terminate()
    agent.stdout.close()
    assert asked == told


class Asked:
    """A preloaded process: what it says of the one request, and whether it is gone."""

    def __init__(self, pid, code, is_gone):
        self._pid, self._code, self._is_gone = pid, code, is_gone

    def ask(self, job, variables, log):
        return 5

    def pid(self, number):
        return {5: self._pid}[number]

    def code(self, number):
        return {5: self._code}[number]

    def is_gone(self):
        return self._is_gone

    def close(self):
        self._is_gone = True


@pytest.mark.parametrize(
    ("asked", "is_cancelled", "code", "is_dropped"),
    [
        (Asked(None, None, False), False, None, False),
        (Asked(12, None, False), False, None, True),
        (Asked(12, 3, False), False, 3, True),
        (Asked(None, None, True), False, None, True),
        (Asked(None, None, False), True, -signal.SIGTERM, True),
    ],
)
def test_the_log_has_one_writer_less_once_the_agent_writes_it_or_never_will(
    tmp_path, asked, is_cancelled, code, is_dropped
):
    started = []
    agent = preloaded.ForkedAgent(
        asked, make_job(tmp_path), {}, lambda log: started.append(log) or SimpleNamespace(poll=lambda: 4)
    )
    if is_cancelled:
        agent.terminate()
    assert agent.poll() == code and agent._has_log is not is_dropped
    assert len(started) == (asked._is_gone and not is_cancelled) and agent.poll() == (4 if started else code)
    if is_dropped:
        assert agent.stdout.read() == b"", "nobody writes it"
    else:
        os.close(agent._log)
    agent.stdout.close()


def test_the_whole_call_of_the_process(monkeypatch):
    called, ended = [], []
    process = SimpleNamespace(kill=lambda: ended.append("killed"), wait=ended.append)
    monkeypatch.setattr(preloaded.subprocess, "Popen", lambda command, **how: called.append((command, how)) or process)
    preloaded.Preloaded({"A": "1", MARKER_VARIABLE: "of a job"}).close()
    [(command, how)] = called
    [descriptor] = how["pass_fds"]
    assert command == [sys.executable, "-m", "benchrunner.worker.preloaded", str(descriptor)]
    assert how == {
        **dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL),
        "env": {"A": "1", MARKER_VARIABLE: NO_MARKER, "BENCH_PARENT_PID": str(os.getpid())},
        "pass_fds": [descriptor],
        "start_new_session": True,
    }
    assert ended == ["killed", preloaded.DRAIN_S]


def test_a_process_that_cannot_be_ended_is_left(monkeypatch):
    """It is stuck in the kernel."""

    def wait(seconds):
        raise subprocess.TimeoutExpired("python", seconds)

    monkeypatch.setattr(preloaded.subprocess, "Popen", lambda *_, **how: SimpleNamespace(kill=lambda: None, wait=wait))
    process = preloaded.Preloaded({})
    process.close()
    assert process.is_gone()


def test_requests_fit_their_buffer(tmp_path):
    """A path and three variables of at most 4 KiB each."""
    request = {"attempt_dir": "x" * 4096, "variables": dict.fromkeys(preloaded.READ_LATE, "x" * 4096)}
    assert len(json.dumps(request)) < 1 << 16
