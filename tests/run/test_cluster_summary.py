import pytest

from benchrunner.run.cluster_summary import mean_busy_share, num_at_once, stopped_by
from benchrunner.store.workers import WorkerFile
from samples import make_cell, make_record


def test_workers_are_taken_together():
    said = [(0.5, 2.0), (None, None), (1.0, 1.5)]
    workers = [WorkerFile(worker="w", busy_share=share, concurrency=at_once) for share, at_once in said]
    assert (mean_busy_share(workers), num_at_once(workers)) == (0.75, 3.5)


def test_where_no_worker_says_nothing_is_known():
    workers = [WorkerFile(worker="w")]
    assert (mean_busy_share(workers), num_at_once(workers)) == (None, None)


@pytest.mark.parametrize(
    ("codes", "why"),
    [
        ((None, "skipped.budget"), None),
        ((None, "skipped.brake", "skipped.cancelled"), "brake"),
        (("skipped.cancelled",), "cluster"),
        (("skipped.time_limit",), "cluster"),
        (("skipped.preempted",), "cluster"),
    ],
)
def test_what_ended_a_sweep_before_its_last_cell(codes, why):
    assert stopped_by(make_record(make_cell(), "skipped", code) for code in codes) == why
