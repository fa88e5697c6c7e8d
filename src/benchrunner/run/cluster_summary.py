"""What the workers of a sweep on a cluster amount to, all of them together."""

from collections.abc import Iterable, Sequence

from benchrunner.core.record import Record
from benchrunner.store.workers import WorkerFile


def mean_busy_share(workers: Sequence[WorkerFile]) -> float | None:
    """How much of the time their devices were at work; None where no worker says."""
    shares = [worker.busy_share for worker in workers if worker.busy_share is not None]
    return sum(shares) / len(shares) if shares else None


def num_at_once(workers: Iterable[WorkerFile]) -> float | None:
    """Cells that ran beside each other, over all workers; None where none says."""
    at_once = [worker.concurrency for worker in workers if worker.concurrency is not None]
    return sum(at_once) if at_once else None


def stopped_by(records: Iterable[Record]) -> str | None:
    """brake | cluster, where one of the two ended the sweep before its last cell."""
    codes = {record.reason_code for record in records}
    if "skipped.brake" in codes:
        return "brake"
    return "cluster" if codes & {"skipped.cancelled", "skipped.time_limit", "skipped.preempted"} else None
