import dataclasses
import sys
import uuid

import pytest

from benchrunner.core.errors import UsageError
from benchrunner.core.paths import AttemptPaths
from benchrunner.core.schema import LauncherConfig
from benchrunner.launch import slurm
from benchrunner.launch.job import Job
from benchrunner.launch.launchers import launcher_for
from samples import H200, make_cell

CONFIG = LauncherConfig(name="slurm", partition="gpu", time_min=30)


class Submitted:
    """A job as submitit shows it."""

    job_id = "123"
    state = "PENDING"
    cancelled = False

    def done(self):
        return self.state in ("COMPLETED", "FAILED")

    def cancel(self, check):
        self.cancelled = True


class Executor:
    """An executor that keeps what it was told."""

    def __init__(self, folder):
        self.folder, self.parameters, self.submitted = folder, None, None

    def update_parameters(self, **parameters):
        self.parameters = parameters

    def submit(self, function, *arguments):
        self.submitted = (function, *arguments)
        return Submitted()


@pytest.fixture
def started(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "secret")
    executors = []

    def make_executor(folder):
        executors.append(Executor(folder))
        return executors[-1]

    job = Job(
        cell=make_cell(strategy="ddp", leaves={"devices": 4, "nodes": 2}),
        paths=AttemptPaths(tmp_path / "attempt-1"),
        devices=(),
        marker=uuid.uuid4().hex,
        hardware=dataclasses.asdict(H200),
    )
    handle = slurm.SlurmLauncher(CONFIG, make_executor).start(job)
    return handle, executors[0], job


def test_a_job_asks_for_what_its_cell_needs(started):
    _, executor, job = started
    expected = {"nodes": 2, "ntasks_per_node": 1, "gpus_per_node": 4, "partition": "gpu", "time": 30}
    assert executor.parameters == {"job_name": f"bench-{job.cell.cell_id}", **expected}
    assert job.paths.cell.exists()


def test_slurm_hands_out_the_devices_and_no_secret_travels(started):
    _, executor, job = started
    function, root, devices, nodes, variables, passed = executor.submitted
    assert passed == ()
    assert (function, root, devices, nodes) == (slurm.run_agent, str(job.paths.root), 4, 2)
    assert variables["BENCH_ATTEMPT"] == job.marker
    assert not {"CUDA_VISIBLE_DEVICES", "HF_TOKEN"} & set(variables)


@pytest.mark.parametrize(
    ("state", "code"),
    [("PENDING", None), ("RUNNING", None), ("COMPLETED", 0), ("FAILED", 1), ("CANCELLED by 0", 1), ("TIMEOUT", 1)],
)
def test_states(started, state, code):
    handle = started[0]
    handle._submitted.state = state
    assert handle.poll() == code


def test_out_of_memory_is_slurms_word(started):
    handle = started[0]
    assert handle.num_oom_kills() == 0
    handle._submitted.state = "OUT_OF_MEMORY"
    assert handle.num_oom_kills() == 1


def test_an_interrupt_cancels(started):
    handle = started[0]
    handle.terminate()
    assert handle._submitted.cancelled


def test_one_node_meets_alone():
    assert slurm.rendezvous(1) == []


def test_without_submitit_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(UsageError, match=r"launcher: slurm needs the package submitit.*benchrunner\[slurm\]"):
        launcher_for(CONFIG)
