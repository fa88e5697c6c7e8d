import os
import signal
import stat
import subprocess
import sys
import time
import uuid
from types import SimpleNamespace

import pytest

from benchrunner.core.paths import AttemptPaths
from benchrunner.launch import steps
from benchrunner.launch.job import Job
from samples import make_cell

MARKER = uuid.uuid4().hex


@pytest.fixture
def job(tmp_path):
    return Job(
        cell=make_cell(strategy="ddp", leaves={"devices": 1, "nodes": 2}), paths=AttemptPaths(tmp_path / "attempt-1"),
        devices=(), marker=MARKER, hardware={"device_type": "cpu"}, nodes=(0, 2),
    )  # fmt: skip


def program(tmp_path, monkeypatch, name, text):
    path = tmp_path / "bin" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{path.parent}:{os.environ['PATH']}")


def wait(handle):
    while (code := handle.poll()) is None:
        pass
    return code


def test_a_job_is_a_step_on_its_nodes(tmp_path, monkeypatch, job):
    program(tmp_path, monkeypatch, "srun", f'echo "$@"; echo marker $BENCH_ATTEMPT; exit 3; {sys.executable}')
    assert wait(steps.StepLauncher(["a1", "a2", "a3"]).start(job)) == 3
    said = job.paths.agent_log.read_text()
    assert "--nodes=2 --ntasks=2 --ntasks-per-node=1 --nodelist=a1,a3" in said and "--overlap" in said
    assert f"worker.agent {job.paths.root} 1 --nnodes=2" in said and "--rdzv-endpoint=a1:" in said
    assert f"marker {MARKER}" in said and job.paths.cell.exists()


def test_the_whole_call_of_a_step(monkeypatch, job):
    called = []
    monkeypatch.setattr(steps.subprocess, "Popen", lambda command, **how: called.append((command, how)))
    monkeypatch.setenv("SLURM_CPU_BIND", "quiet")
    steps.StepLauncher(["a1", "a2", "a3"]).start(job)
    [(words, how)] = called
    agent = [sys.executable, "-m", "benchrunner.worker.agent", str(job.paths.root), "1"]
    assert words == [*steps.srun(["a1", "a3"]), *agent, *steps.rendezvous(["a1", "a3"], MARKER)]
    assert how["env"]["BENCH_ATTEMPT"] == MARKER and "SLURM_CPU_BIND" not in how["env"]
    assert how["stdin"] == subprocess.DEVNULL and how["start_new_session"]
    assert how["stdout"].name == how["stderr"].name == str(job.paths.agent_log)


@pytest.fixture
def staying(monkeypatch, job):
    """A step that stays, what it does to others, and the time."""
    told, now = [], [100.0]
    monkeypatch.setattr(steps.subprocess, "Popen", lambda *_, **__: SimpleNamespace(pid=77, poll=lambda: None))
    monkeypatch.setattr(steps.subprocess, "run", lambda command, **how: told.append((command[-2:], how)))
    monkeypatch.setattr(steps, "send_signal", lambda pids, signum: told.append((pids, signum)))
    monkeypatch.setattr(steps, "kill_marked", told.append)
    monkeypatch.setattr(steps, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return steps.StepLauncher(["a1", "a2", "a3"]).start(job), told, now


def test_a_step_that_is_told_to_end_is_killed_once_on_its_nodes_and_here_when_its_time_is_up(staying):
    handle, told, now = staying
    assert handle.poll() is None and told == []
    handle.terminate()
    handle.terminate()
    now[0] += steps.GRACE_S - 0.1
    assert handle.poll() is None and told == [([77], signal.SIGTERM)]
    now[0] = 100.0 + steps.GRACE_S
    assert handle.poll() is None and handle.poll() is None
    how = {"check": False, "capture_output": True, "stdin": subprocess.DEVNULL, "timeout": steps.REACH_S}
    assert told[1:] == [(["kill", MARKER], how), MARKER]


def test_one_node_meets_alone():
    assert steps.rendezvous(["a1"], MARKER) == []


def test_several_meet_at_the_first_on_a_port_of_their_own():
    assert steps.rendezvous(["a1", "a2"], "00002ee1" + "f" * 24) == [
        "--nnodes=2",
        "--rdzv-backend=c10d",
        f"--rdzv-id=00002ee1{'f' * 24}",
        "--rdzv-endpoint=a1:20001",
    ]
    assert steps.rendezvous(["a1", "a2"], "00002edf")[-1] == "--rdzv-endpoint=a1:31999"


def test_a_step_has_a_task_a_node_beside_the_others():
    assert steps.srun(["a1", "a2", "a3"]) == [
        "srun", "--overlap", "--cpu-bind=none", "--mem=0", "--nodes=3", "--ntasks=3", "--ntasks-per-node=1",
        "--nodelist=a1,a2,a3",
    ]  # fmt: skip


def test_on_a_node_an_attempt_is_killed_and_its_ranks_say_where_they_are(tmp_path, monkeypatch):
    killed, told = [], []
    monkeypatch.setattr(steps, "kill_marked", killed.append)
    monkeypatch.setattr(steps, "send_signal", lambda pids, signum: told.append((pids, signum)))
    monkeypatch.setattr(steps, "marked_pids", {MARKER: [10, 11]}.__getitem__)
    for rank, pid in enumerate((11, 12)):
        (tmp_path / f"rank{rank}.json").write_text(f'{{"rank": {rank}, "pid": {pid}}}')
    steps._main("kill", MARKER)
    steps._main("stacks", MARKER, str(tmp_path))
    assert (killed, told) == ([MARKER], [({11}, signal.SIGUSR1)])


def test_nodes_that_do_not_answer_are_named(tmp_path, monkeypatch, job, capsys):
    program(tmp_path, monkeypatch, "srun", "exit 0")
    handle = steps.StepLauncher(["a1", "a2", "a3"]).start(job)
    asked = []

    def run(command, **options):
        asked.append(command)
        raise steps.subprocess.TimeoutExpired(command, options["timeout"])

    monkeypatch.setattr(steps.subprocess, "run", run)
    handle.dump_stacks()
    assert capsys.readouterr().err == "nodes do not answer: stacks\n"
    expected = ["-m", "benchrunner.launch.steps", "stacks", MARKER, str(job.paths.root)]
    assert asked == [[*steps.srun(["a1", "a3"]), sys.executable, *expected]]
    wait(handle)


def test_kills_for_memory_are_counted_since_the_step_began(tmp_path, monkeypatch, job):
    program(tmp_path, monkeypatch, "srun", "exit 0")
    counts = iter([3, 5, None])
    monkeypatch.setattr(steps, "num_oom_kills", lambda: next(counts))
    handle = steps.StepLauncher(["a1", "a2", "a3"]).start(job)
    assert (handle.num_oom_kills(), handle.num_oom_kills(), handle.is_waiting(), handle.pids()) == (2, 0, False, [])
    wait(handle)


def test_what_does_not_end_is_killed_on_its_nodes(tmp_path, monkeypatch, job):
    deaf = f'trap "" TERM; touch "{tmp_path}/deaf"; sleep 60'
    program(tmp_path, monkeypatch, "srun", 'if [[ "$*" == *steps* ]]; then exec "${@:8}"; fi; ' + deaf)
    monkeypatch.setattr(steps, "GRACE_S", 0.0)
    handle = steps.StepLauncher(["a1", "a2", "a3"]).start(job)
    while not (tmp_path / "deaf").exists():
        time.sleep(0.01)
    handle.terminate()
    assert wait(handle) == -signal.SIGKILL
