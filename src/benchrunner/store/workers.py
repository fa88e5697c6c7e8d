"""workers/ID.json: what each `bench work` says of itself, and ID.gone, by which the others say that it is not there."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchrunner.core.errors import DamagedFile
from benchrunner.core.files import read_json, write_json
from benchrunner.core.paths import SweepPaths
from benchrunner.core.units import MIB

WORKER_BYTES = MIB


@dataclass(kw_only=True)
class WorkerFile:
    """One worker, rewritten with every sign of life."""

    worker: str
    job: str = ""
    """The allocation that it runs in; empty: none."""
    state: str = "working"
    """working | left: it will not come back, and whatever it had without a verdict is anybody's."""
    beats: int = 0
    """Grows. The clocks of two hosts are never compared: who watches sees it change, or not."""
    started_at: str = ""
    """ISO 8601, UTC."""
    num_devices: int = 0
    running: list[str] = field(default_factory=list)
    """Places: see `PlannedCell.place`."""
    busy_share: float | None = None
    concurrency: float | None = None
    notes: list[str] = field(default_factory=list)
    """See `runs.ExitSummary`, of what the worker ran."""


def worker_path(paths: SweepPaths, worker: str) -> Path:
    """Where a worker's file is."""
    return paths.workers / f"{worker}.json"


def gone_path(paths: SweepPaths, worker: str) -> Path:
    """The mark that a worker is gone; it is never removed, so all agree for ever."""
    return paths.workers / f"{worker}.gone"


def write_worker(paths: SweepPaths, worker: WorkerFile) -> None:
    """A sign of life.

    Raises:
        OSError: it cannot be written.
    """
    paths.workers.mkdir(parents=True, exist_ok=True)
    write_json(worker_path(paths, worker.worker), asdict(worker), sync=False)


def read_worker(paths: SweepPaths, worker: str) -> WorkerFile | None:
    """A worker as it last showed itself; None: it has no file that can be read."""
    with suppress(FileNotFoundError, DamagedFile):
        return read_json(worker_path(paths, worker), WorkerFile, limit_bytes=WORKER_BYTES)
    return None


def read_workers(paths: SweepPaths) -> Iterator[WorkerFile]:
    """Every worker that has shown itself."""
    for path in sorted(paths.workers.glob("*.json")):
        if (found := read_worker(paths, path.stem)) is not None:
            yield found


def is_gone(paths: SweepPaths, worker: str) -> bool:
    """Whether somebody has declared a worker gone."""
    return gone_path(paths, worker).exists()


def declare_gone(paths: SweepPaths, worker: str) -> None:
    """From now on nobody counts on this worker, itself included."""
    paths.workers.mkdir(parents=True, exist_ok=True)
    gone_path(paths, worker).touch()
