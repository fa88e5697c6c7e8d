"""A launcher that starts nothing: scripted outcomes on a virtual clock, for tests of everything above the seam."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from benchrunner.core.files import write_json
from benchrunner.core.heartbeat import BOTH
from benchrunner.core.rank_file import ExitsFile, RankFile
from benchrunner.core.rank_result import RankError, RankResult
from benchrunner.core.record import Phase, RankState
from benchrunner.launch.job import Job, write_job


class VirtualClock:
    """Time that passes only when somebody sleeps; it begins anywhere, as a machine's does."""

    def __init__(self, now_s: float = 0.0) -> None:
        self._now_s = now_s
        self._alarms: list[tuple[float, Callable[[], object]]] = []

    def now(self) -> float:
        """Seconds; monotonic, as those of a machine."""
        return self._now_s

    def sleep(self, seconds: float) -> None:
        """Let time pass, and do what was to be done until then."""
        self._now_s += seconds
        due = [action for at_s, action in self._alarms if at_s <= self._now_s]
        self._alarms = [alarm for alarm in self._alarms if alarm[0] > self._now_s]
        for action in due:
            action()

    def at(self, at_s: float, action: Callable[[], object]) -> None:
        """Have something done once so many seconds have passed since the clock was made."""
        self._alarms.append((at_s, action))


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """What becomes of a job: it ends after `duration_s` with these results, errors and exit codes; or never.

    A launcher calls for the script as the job starts: what else is to happen then can happen there.
    """

    duration_s: float = 1.0
    result: RankResult | None = field(default_factory=RankResult)
    """Of every rank without an error; None: the rank leaves without a word."""
    errors: dict[int, RankError] = field(default_factory=dict)
    """Rank → the error in its file: at the job's end, or from the start where it hangs."""
    exits: dict[int, int] = field(default_factory=dict)
    """Rank → exit code, for those that failed."""
    phase: Phase = "measure"
    """Where ranks are that do not reach their end."""
    phases: dict[int, Phase] = field(default_factory=dict)
    """Rank → where it is, for those that are not in `phase`."""
    queued_s: float = 0.0
    """So long the job waits in somebody else's queue; it is part of `duration_s`."""
    pids: tuple[int, ...] = ()
    """Processes of the job that are there, and stay."""
    num_oom_kills: int = 0
    """How often the kernel killed for lack of memory."""
    hangs: bool = False
    beat_every_s: float = 1.0
    """Every rank issues a step so often."""
    only_draws: bool = False
    """Its signs of life are data drawn, and no steps."""
    beats_until_s: float | None = None
    """When a rank issues its last step; None: as it ends, or never a first one where it hangs."""
    unreadable_s: tuple[float, float] = (0.0, 0.0)
    """From when to when, counted from the job's start, nobody can read the file of rank 0."""
    raises: Exception | None = None
    """Raised on start."""


class FakeLauncher:
    """Starts scripts instead of processes. `clock` is to be given to the run loop."""

    def __init__(self, script: Callable[[Job], Script], *, is_local: bool = True, num_nodes: int = 1) -> None:
        self.script, self.is_local, self.num_nodes = script, is_local, num_nodes
        self.clock = VirtualClock()
        self.handles: list[FakeHandle] = []
        """Every job started, in order."""

    def start(self, job: Job) -> "FakeHandle":
        """See Launcher."""
        script = self.script(job)
        if script.raises is not None:
            raise script.raises
        write_job(job)
        handle = FakeHandle(job, script, self.clock)
        self.handles.append(handle)
        return handle

    def close(self) -> None:
        """See Launcher. Nothing is kept."""


class FakeHandle:
    """A job that is only a script."""

    def __init__(self, job: Job, script: Script, clock: VirtualClock) -> None:
        self.job, self.script, self._clock = job, script, clock
        self.started_s = clock.now()
        self.ended_s: float | None = None
        self.num_dumps = 0
        self._num_beats = 0
        self._hidden: str | None = None
        """What the file of rank 0 holds while nobody can read it."""
        self._code: int | None = None
        for rank in range(job.cell.sizes.world_size):
            self._write_rank(rank, script.errors.get(rank) if script.hangs else None)

    def poll(self) -> int | None:
        """See Handle."""
        self._beat()
        if (
            self._code is None
            and not self.script.hangs
            and self._clock.now() >= self.started_s + self.script.duration_s
        ):
            self._end()
        self._hide()
        return self._code

    def is_waiting(self) -> bool:
        """See Handle."""
        return self._clock.now() < self.started_s + self.script.queued_s

    def terminate(self) -> None:
        """See Handle."""
        self.kill()

    def kill(self) -> None:
        """See Handle."""
        if self._code is None:
            self._code, self.ended_s = -15, self._clock.now()

    def dump_stacks(self) -> None:
        """See Handle."""
        self.num_dumps += 1

    def pids(self) -> list[int]:
        """See Handle."""
        return list(self.script.pids)

    def num_oom_kills(self) -> int:
        """See Handle."""
        return self.script.num_oom_kills

    def _beat(self) -> None:
        last_s = self.script.beats_until_s
        last_s = (0.0 if self.script.hangs else math.inf) if last_s is None else last_s
        count = int(min(self._clock.now() - self.started_s, last_s) / self.script.beat_every_s)
        if count > self._num_beats and self._code is None:
            self._num_beats = count
            for rank in range(self.job.cell.sizes.world_size):
                steps, drawn = (0, count) if self.script.only_draws else (count, 0)
                self.job.paths.beat(rank).write_bytes(BOTH.pack(steps, drawn))

    def _end(self) -> None:
        script, failed = self.script, bool(self.script.errors or self.script.exits)
        for rank in range(self.job.cell.sizes.world_size):
            error = script.errors.get(rank)
            if error is not None:
                self._write_rank(rank, error)
            elif not failed and script.result is not None:
                self._write(self._status(rank, phase="teardown", state="done", result=script.result))
        exits: ExitsFile = {"exits": [{"rank": rank, "code": code} for rank, code in script.exits.items()]}
        write_json(self.job.paths.exits(), exits)
        self._code, self.ended_s = int(failed), self._clock.now()

    def _write_rank(self, rank: int, error: RankError | None) -> None:
        """A rank that has not reached its end."""
        state: RankState = "running" if error is None else "error"
        phase = self.script.phases.get(rank, self.script.phase)
        self._write(self._status(rank, phase=phase, state=state, error=error))

    def _status(self, rank: int, **more: Any) -> RankFile:
        return RankFile(rank=rank, pid=1, marker=self.job.marker, **more)

    def _write(self, status: RankFile) -> None:
        if status.rank == 0:
            self._hidden = None
        write_json(self.job.paths.rank(status.rank), asdict(status), sync=False)

    def _hide(self) -> None:
        """Garbage in the place of rank 0's file for a while."""
        begin_s, end_s = (self.started_s + second_s for second_s in self.script.unreadable_s)
        path, is_time = self.job.paths.rank(0), begin_s <= self._clock.now() < end_s
        if is_time and self._hidden is None:
            self._hidden = path.read_text(encoding="utf-8")
            path.write_text("{ garbage", encoding="utf-8")
        elif not is_time and self._hidden is not None:
            path.write_text(self._hidden, encoding="utf-8")
            self._hidden = None
