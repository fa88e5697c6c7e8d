"""One cell at work: looked at again and again until its job has gone, ended when it is overdue or stuck."""

import json
from dataclasses import dataclass
from pathlib import Path

from benchrunner.evidence import Evidence, Stop, gather
from benchrunner.launch import Handle, Job
from benchrunner.plan import PlannedCell
from benchrunner.record import RankFile, rank_file_from_dict

LOOK_S = 0.5
"""Between two looks at the rank files."""

DUMP_S = 1.0
"""From asking the ranks for their stacks to ending them."""

STUCK_S = 10.0
"""A job is ended so long after one of its ranks failed, should torchrun not have managed to."""


@dataclass(slots=True, kw_only=True)
class Running:
    """A job and what is known about it so far. Times are the loop clock's seconds."""

    planned: PlannedCell
    job: Job
    handle: Handle
    places: tuple[int, ...]
    """What it holds of the pool."""
    started_s: float
    looked_s: float = 0.0
    failed_s: float | None = None
    """When a rank was first seen to have failed."""
    stop: Stop | None = None
    terminate_s: float | None = None
    """When the job is to be told to end."""

    def step(self, now_s: float) -> int | None:
        """Look once; the job's exit code when it has gone, else null."""
        code = self.handle.poll()
        if code is not None:
            return code
        if self.stop is None and now_s >= self.looked_s + LOOK_S:
            self.looked_s = now_s
            self._look(now_s)
        if self.terminate_s is not None and now_s >= self.terminate_s:
            self.terminate_s = None
            self.handle.terminate()
        return None

    def interrupt(self) -> None:
        """End the job because the sweep is to end."""
        self.stop = self.stop or Stop(kind="interrupted")
        self.terminate_s = None
        self.handle.terminate()

    def evidence(self, code: int) -> Evidence:
        """What the job left, once it has gone."""
        world_size = self.planned.cell.sizes.world_size
        kills = self.handle.num_oom_kills()
        return gather(self.job.paths, world_size, code=code, stop=self.stop, num_oom_kills=kills)

    def _look(self, now_s: float) -> None:
        limit_s = float(self.planned.cell.get("timeout_s"))
        failed, gone = self._failed_ranks()
        if self.failed_s is None and (failed or gone):
            self.failed_s = now_s
        if self.failed_s is not None and now_s >= self.failed_s + STUCK_S:
            self.stop, self.terminate_s = Stop(kind="stuck", gone=gone), now_s
        elif now_s >= self.started_s + limit_s:
            self.stop, self.terminate_s = Stop(kind="timeout", limit_s=limit_s, gone=gone), now_s + DUMP_S
            self.handle.dump_stacks()

    def _failed_ranks(self) -> tuple[bool, frozenset[int]]:
        """Whether a rank says that it failed or left garbage; and the ranks that have gone without a word."""
        alive = set(self.handle.pids())
        files = [_read(path) for path in self.job.paths.root.glob("rank*.json")]
        known = [status for status in files if status is not None]
        silent = {status.rank for status in known if status.state == "running" and alive and status.pid not in alive}
        return len(known) < len(files) or any(status.state == "error" for status in known), frozenset(silent)


def _read(path: Path) -> RankFile | None:
    """A rank file is written atomically, so one that cannot be read is garbage."""
    try:
        return rank_file_from_dict(json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError, AttributeError, KeyError):
        return None
