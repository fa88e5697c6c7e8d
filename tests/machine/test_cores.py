import pytest

from benchrunner.machine import cores
from benchrunner.machine.cores import bind_to_allocation

JOB = "JobId=7 NodeList=a[1-3] Nodes=a[1-2] CPU_IDs=1,3 Mem=0 GRES= Nodes=a3 CPU_IDs=0-1 Mem=0 GRES="


@pytest.fixture
def bound(monkeypatch):
    """The cores that the process was bound to; it sees 4 to 7."""
    found = []
    own = {0: {7, 5, 6, 4}}
    monkeypatch.setattr(cores.os, "sched_getaffinity", own.__getitem__)
    monkeypatch.setattr(cores.os, "sched_setaffinity", lambda pid, chosen: own[pid] and found.append(chosen))
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
        (allocation("a1"), "Nodes=a1 CPU_IDs=3-4 Mem=0"),
        (allocation("a1", "4"), "Nodes=a1 CPU_IDs=0-3 Mem=0"),
    ],
)
def test_a_job_that_is_bound_or_of_which_nothing_is_known_stays_as_it_is(bound, environ, told):
    bind_to_allocation(environ, lambda job: told)
    assert bound == []


def test_one_core_is_bound_too(bound):
    bind_to_allocation(allocation("a1", "1"), lambda job: "Nodes=a1 CPU_IDs=2 Mem=0")
    assert bound == [{6}]


@pytest.mark.parametrize("code", [0, 1])
def test_the_controller_is_asked_for_details_of_the_job_on_one_line(bound, monkeypatch, tmp_path, code):
    scontrol = tmp_path / "scontrol"
    asked = "[ \"$*\" = '--oneliner --details show job 7' ]"
    scontrol.write_text(f"#!/bin/sh\n{asked} && printf 'Nodes=a1 CPU_IDs=1,3 \\377\\n'; exit {code}\n")
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    bind_to_allocation(allocation("a1"))
    assert bound == [{5, 7}]


def test_without_a_controller_nothing_is_bound(bound, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    bind_to_allocation(allocation("a1"))
    assert bound == []
