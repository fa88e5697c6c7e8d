import pytest

from benchrunner.core.faults import parse_fault
from benchrunner.machine.hardware import machine_facts
from benchrunner.run import attempts as attempts_module
from benchrunner.run.attempts import Attempts, attempt_of
from benchrunner.run.options import RunOptions
from benchrunner.run.schedule import make_pool
from fake_sweeps import cells
from samples import H200


@pytest.fixture
def attempts(paths):
    pool = make_pool(H200, is_local=True, num_nodes=2)
    return Attempts(paths, H200, RunOptions(fault="hang@1"), pool, names_devices=True)


def test_a_job_is_told_what_it_needs_to_know(paths, attempts):
    planned = cells(1, devices=2)[0]
    job = attempts.next_job(planned, (6, 7), above=3)
    assert (job.cell, job.paths) == (planned.cell, paths.cell(planned.place).attempt(4))
    assert (job.attempt, job.nodes, job.devices) == (4, (1,), (2, 3))
    assert (job.fault, job.hardware) == (parse_fault("hang@1"), machine_facts(H200))
    assert job.started_at and job.marker != attempts.next_job(planned, (6, 7)).marker


def test_an_exclusive_cell_uses_no_more_than_its_devices(attempts):
    job = attempts.next_job(cells(1, exclusive=True)[0], tuple(range(8)))
    assert (job.nodes, job.devices) == ((0,), (0,))


def test_devices_are_named_only_where_they_are_handed_out_here(paths):
    attempts = Attempts(paths, H200, RunOptions(fault=None), make_pool(H200, is_local=False), names_devices=False)
    assert attempts.next_job(cells(1)[0], (5,)).devices == ()


def test_the_record_says_how_the_job_was_run(attempts, monkeypatch):
    monkeypatch.setattr(attempts_module, "job_environment", lambda job, environ: {"OMP_NUM_THREADS": str(job.attempt)})
    job = attempts.next_job(cells(1, devices=2)[0], (0, 1), above=3)
    made = attempt_of(job, 2.5, beside=["other"])
    assert (made.number, made.started_at, made.wall_s, made.beside) == (4, job.started_at, 2.5, ["other"])
    assert (made.devices, made.fault, made.hardware) == ((0, 1), "hang@1", job.hardware)
    assert made.environment == {"variables": {"OMP_NUM_THREADS": "4"}}
