"""Who of the workers of a sweep is still there: each gives signs of life, and each watches those of the others."""

from benchrunner.core.errors import SweepDirError
from benchrunner.core.paths import SweepPaths
from benchrunner.store import workers
from benchrunner.store.workers import WorkerFile

BEAT_INTERVAL_S = 5.0
"""Between two signs of life."""

LEASE_S = 120.0
"""Who has shown no sign for so long is declared gone. A shared file system may hang for a minute."""


class Attendance:
    """The workers of a sweep, as one of them sees them. Times are its own clock's seconds."""

    def __init__(self, paths: SweepPaths, own: WorkerFile) -> None:
        self.own = own
        self._paths = paths
        self._beaten_s: float | None = None
        self._seen: dict[str, tuple[int, float]] = {}
        """Worker → its count, and when that was first seen."""
        self._gone: set[str] = set()
        self._alive: set[str] = set()

    def begin(self) -> None:
        """Show oneself; whoever was in the same allocation before it was started again is gone."""
        for other in workers.read_workers(self._paths):
            if self.own.job and other.job == self.own.job and other.state == "working":
                workers.declare_gone(self._paths, other.worker)
        workers.write_worker(self._paths, self.own)

    def beat(self, now_s: float, running: list[str]) -> None:
        """Give a sign of life when it is time.

        Raises:
            SweepDirError: the others have given up this worker.
        """
        self.require_membership()
        if self._beaten_s is None or now_s >= self._beaten_s + BEAT_INTERVAL_S:
            self._beaten_s = now_s
            self.own.beats += 1
            self.own.running = running
            workers.write_worker(self._paths, self.own)

    def require_membership(self) -> None:
        """Before anything is written that only one may write.

        Raises:
            SweepDirError: the others have given up this worker.
        """
        if workers.is_gone(self._paths, self.own.worker):
            raise SweepDirError(f"{self._paths.root}: this worker gave no sign of life for too long; others go on")

    def is_gone(self, worker: str) -> bool:
        """Whether what this worker has is anybody's, as far as `look` has seen."""
        return worker in self._gone

    def look(self, worker: str, now_s: float) -> None:
        """See whether a worker left, was declared gone, or is to be declared so now."""
        if worker in self._gone:
            return
        found = workers.read_worker(self._paths, worker)
        left = found is not None and found.state == "left"
        if left or workers.is_gone(self._paths, worker):
            self._gone.add(worker)
        elif self._is_silent(worker, found.beats if found else -1, now_s):
            workers.declare_gone(self._paths, worker)
            self._gone.add(worker)

    def is_alive(self, worker: str) -> bool:
        """Whether it was seen to give a sign of life; who was not may be dead as well."""
        return worker in self._alive and worker not in self._gone

    def leave(self) -> None:
        """Tell the others that this worker has ended."""
        self.own.state, self.own.running = "left", []
        workers.write_worker(self._paths, self.own)

    def _is_silent(self, worker: str, beats: int, now_s: float) -> bool:
        before = self._seen.get(worker)
        if before is None or before[0] != beats:
            self._seen[worker] = (beats, now_s)
            if before is not None:
                self._alive.add(worker)
            return False
        return now_s >= before[1] + LEASE_S
