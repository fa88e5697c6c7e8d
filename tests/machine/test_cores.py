import pytest

from benchrunner.machine import cores
from benchrunner.machine.cores import bind_to_allocation

JOB = "JobId=7 NodeList=a[1-3] Nodes=a[1-2] CPU_IDs=1,3 Mem=0 GRES= Nodes=a3 CPU_IDs=0-1 Mem=0 GRES="


@pytest.fixture
def bound(monkeypatch):
    """The cores that the process was bound to; it sees 4 to 7."""
    found = []
    monkeypatch.setattr(cores.os, "sched_getaffinity", lambda pid: {7, 5, 6, 4})
    monkeypatch.setattr(cores.os, "sched_setaffinity", lambda pid, chosen: found.append(chosen))
    return found


def allocation(node, count="2"):
    return {"SLURM_JOB_ID": "7", "SLURMD_NODENAME": node, "SLURM_CPUS_ON_NODE": count}


@pytest.mark.parametrize(("node", "chosen"), [("a1", {5, 7}), ("a2", {5, 7}), ("a3", {4, 5})])
def test_a_job_that_nobody_bound_keeps_to_the_cores_that_it_was_given(bound, node, chosen):
    bind_to_allocation(allocation(node), {"7": JOB}.__getitem__)
    assert bound == [chosen]


@pytest.mark.parametrize(
    ("environ", "told"),
    [
        ({}, JOB),
        (allocation("a1", "4"), JOB),
        (allocation("a1", "3"), JOB),
        (allocation("b1"), JOB),
        (allocation("a1"), ""),
        (allocation("a1"), "Nodes=a1 CPU_IDs=8-9 Mem=0"),
    ],
)
def test_a_job_that_is_bound_or_of_which_nothing_is_known_stays_as_it_is(bound, environ, told):
    bind_to_allocation(environ, lambda job: told)
    assert bound == []


def test_without_a_controller_nothing_is_bound(bound, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    bind_to_allocation(allocation("a1"))
    assert bound == []
