"""What a job is, and the seam that launchers fill: start it, look at it, end it."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from benchrunner.core.cell import Cell, cell_to_dict
from benchrunner.core.errors import DamagedFile
from benchrunner.core.faults import Fault, format_fault
from benchrunner.core.files import write_json
from benchrunner.core.job_file import JobFile, Machine
from benchrunner.core.paths import AttemptPaths
from benchrunner.core.rank_file import read_rank_file


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One attempt at a cell."""

    cell: Cell
    paths: AttemptPaths
    devices: tuple[int, ...]
    """Indices among the devices that this process sees; empty on CPU."""
    marker: str
    """Unique; in the environment of every process of the attempt."""
    hardware: Machine
    nodes: tuple[int, ...] = (0,)
    """Which nodes of the allocation; outside of one there is this machine alone."""
    attempt: int = 1
    fault: Fault | None = None
    started_at: str = ""
    """ISO 8601, UTC."""


class Handle(Protocol):
    """A running job."""

    def poll(self) -> int | None:
        """Exit code once every process of the job has gone, else None; also drives the kill path on."""

    def is_waiting(self) -> bool:
        """Whether the job waits in a queue that is not ours, so that its time has not begun."""

    def terminate(self) -> None:
        """Ask the job to end; what is left after a few seconds is killed by `poll`."""

    def kill(self) -> None:
        """End every process of the job now."""

    def dump_stacks(self) -> None:
        """Make every rank write its Python stacks to its error stream."""

    def pids(self) -> list[int]:
        """The processes of the job on this host."""

    def num_oom_kills(self) -> int:
        """How often the kernel killed for lack of memory while the job ran."""


class Launcher(Protocol):
    """Starts jobs."""

    is_local: bool
    """Whether jobs run on the devices of this machine; else their number is somebody else's business."""
    num_nodes: int
    """Machines like this one that jobs run on."""

    def start(self, job: Job) -> Handle:
        """Start a job. Called from the main thread only: the agent dies with the thread that spawned it."""

    def close(self) -> None:
        """End what is kept between jobs; every job has ended. Another job may be started nevertheless."""


def write_job(job: Job) -> None:
    """The attempt's directory with `cell.json`: what the ranks read.

    Raises:
        FileExistsError: the directory is there; what another launch left in it must not be taken for this one's.
    """
    job.paths.root.mkdir(parents=True)
    document: JobFile = {
        "cell": cell_to_dict(job.cell),
        "hardware": job.hardware,
        "attempt": job.attempt,
        "marker": job.marker,
        "fault": format_fault(job.fault),
        "devices": list(job.devices),
        "started_at": job.started_at,
    }
    write_json(job.paths.cell, document)


def rank_pids(paths: AttemptPaths) -> list[int]:
    """The process ids that the rank files name; a damaged file names none that could be trusted with a signal."""
    return list(_pids(paths))


def _pids(paths: AttemptPaths) -> Iterator[int]:
    for path in paths.root.glob("rank*.json"):
        with suppress(FileNotFoundError, DamagedFile):
            yield read_rank_file(path).pid
