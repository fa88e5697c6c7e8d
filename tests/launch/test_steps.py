import os
import signal
import stat
import sys
import time
import uuid

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


def test_one_node_meets_alone():
    assert steps.rendezvous(["a1"], MARKER) == []


def test_what_does_not_end_is_killed_on_its_nodes(tmp_path, monkeypatch, job):
    deaf = f'trap "" TERM; touch "{tmp_path}/deaf"; sleep 60'
    program(tmp_path, monkeypatch, "srun", 'if [[ "$*" == *steps* ]]; then exec "${@:8}"; fi; ' + deaf)
    monkeypatch.setattr(steps, "GRACE_S", 0.0)
    handle = steps.StepLauncher(["a1", "a2", "a3"]).start(job)
    while not (tmp_path / "deaf").exists():
        time.sleep(0.01)
    handle.terminate()
    assert wait(handle) == -signal.SIGKILL
