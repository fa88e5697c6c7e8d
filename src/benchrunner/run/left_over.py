"""Cells that the allocations of a sweep left without a verdict: what is said of them."""

from benchrunner.core.paths import SweepPaths
from benchrunner.core.record import Status
from benchrunner.launch.allocation import End
from benchrunner.outcome.outcome import Outcome
from benchrunner.run.allocations import Allocations
from benchrunner.store.workers import read_worker

LEFT: dict[End, tuple[Status, str, str]] = {
    "cancelled": ("skipped", "skipped.cancelled", "its allocation was cancelled"),
    "time_limit": ("skipped", "skipped.time_limit", "its allocation reached its time limit"),
    "preempted": ("skipped", "skipped.preempted", "its allocation was preempted"),
    "completed": ("skipped", "skipped.time_limit", "no allocation had time enough for it (launcher.time_min)"),
    "node_failed": ("failed", "failed.node", "a node of its allocation went down"),
    "out_of_memory": ("failed", "failed.allocation", "its allocation ran out of host memory (launcher.mem)"),
    "failed": ("failed", "failed.allocation", "its allocation failed"),
    "unknown": ("failed", "failed.allocation", "its allocation has ended, and the cluster cannot say how"),
}
"""How an allocation ended → the verdict on a cell that it left without one."""


def outcome_of(owner: str | None, allocations: Allocations, paths: SweepPaths) -> Outcome:
    """The verdict on a cell, by the allocation whose worker had it (`owner`), else by the last one that ended."""
    worker = read_worker(paths, owner) if owner else None
    job = worker.job if worker and worker.job in allocations.states else allocations.last()
    state = allocations.states.get(job)
    status, code, why = LEFT[(state.end if state else None) or "unknown"]
    when = "it was at work when" if owner else "not started:"
    said = f": {allocations.last_words(job)}" if code == "failed.allocation" and job else ""
    return Outcome(status=status, reason_code=code, reason=f"{when} {why} (job {job or 'unknown'}){said}")
