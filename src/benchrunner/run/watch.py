"""One cell at work: looked at again and again until its job has gone, ended when it is overdue or stuck."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from benchrunner.core.heartbeat import read_progress
from benchrunner.core.log_cap import LogCap
from benchrunner.core.rank_file import RankFile
from benchrunner.core.record import PHASES, Phase
from benchrunner.launch.job import Handle, Job
from benchrunner.outcome.evidence import Evidence, Stop, gather, read_ranks
from benchrunner.plan.plan import PlannedCell
from benchrunner.run.limits import phase_limits_s
from benchrunner.run.progress import SILENT, format_clock

LOOK_INTERVAL_S = 0.5
"""Between two looks at the rank files."""

DUMP_DELAY_S = 1.0
"""From asking the ranks for their stacks to ending them."""

SILENCE_S = 30.0
"""After so long without a new phase or step of any rank the live line says so."""

PAUSE_S = 5.0
"""Nobody looked for so long: this process was stopped, as all are in a container that is paused."""

DOING: dict[Phase, str] = {
    "start": "starting",
    "build": "building",
    "compile": "compiling",
    "warmup": "warming up",
    "measure": "measuring",
    "check": "checking",
    "teardown": "leaving",
}
"""Phase → what the live line calls it."""

STUCK_GRACE_S = 10.0
"""A job is ended when one of its ranks has been seen as failed, gone or unreadable for so long, look after look."""

REREAD_S = 5.0
"""So long a rank file that cannot be read is read again after its job has gone: on a network disk that may pass."""


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
    """Since when every look has seen a rank that failed, has gone or cannot be read; None: the last one saw none."""
    ended_s: float | None = None
    """When the job was first seen to have gone."""
    stop: Stop | None = None
    terminate_s: float | None = None
    """When the job is to be told to end."""
    beside: set[str] = field(default_factory=set)
    """The cells that ran at the same time, if only for a moment."""
    limits_s: Mapping[str, float] = field(init=False)
    """Phase → seconds without progress."""
    _logs: LogCap = field(init=False)
    _statuses: dict[int, RankFile] = field(default_factory=dict)
    """Rank → what its file said when it could last be read."""
    _seen: Mapping[int, tuple[Phase, int]] | None = None
    """Rank → its phase and steps, when something last changed."""
    _progress_s: float = 0.0
    """When that was."""
    _is_excused: bool = False
    """Whether a pause was taken off this silence; a second is not, or a loop that is always late would see no hang."""
    _phase: Phase | None = None
    """Where the rank was that the others wait for, when somebody looked; None: nobody has yet."""
    _phase_s: float = 0.0
    """Since when."""

    def __post_init__(self) -> None:
        self._logs = LogCap(self.job.paths.logs(self.planned.cell.sizes.world_size))
        self.limits_s = phase_limits_s(self.planned, str(self.job.hardware["device_type"]))

    def meet(self, others: "Iterable[Running]") -> None:
        """This job starts while the others run."""
        for other in others:
            self.beside.add(other.job.cell.slug)
            other.beside.add(self.job.cell.slug)

    def step(self, now_s: float) -> int | None:
        """Look once; the job's exit code when it has gone, else None."""
        code = self.handle.poll()
        self._logs.trim()
        if code is not None:
            return code if self._may_be_judged(now_s) else None
        if self.stop is None and now_s >= self.looked_s + LOOK_INTERVAL_S:
            self._excuse_pause(now_s - self.looked_s)
            self.looked_s = now_s
            self._look(now_s)
        if self.terminate_s is not None and now_s >= self.terminate_s:
            self.terminate_s = None
            self.handle.terminate()
        return None

    def _excuse_pause(self, gap_s: float) -> None:
        """Ranks that were stopped together with this process had no time for progress."""
        if gap_s >= PAUSE_S and self._seen is not None and not self._is_excused:
            self._progress_s, self._is_excused = self._progress_s + gap_s, True

    def silence_s(self, now_s: float) -> float:
        """Seconds since a rank last entered a phase or issued a step, as far as anybody has looked."""
        return now_s - self._progress_s if self._seen is not None and self.stop is None else 0.0

    def silent_phase(self) -> Phase:
        """Where the rank is that the others wait for."""
        return self._last_phase(self._seen or {})

    def doing(self, now_s: float) -> str | None:
        """`compiling 1:12`: the phase and how long it has lasted; None before anybody has looked."""
        if self._phase is None or self.stop is not None:
            return None
        return doing_text(self.planned, self._phase, now_s - self._phase_s)

    def interrupt(self, kind: str = "interrupted") -> None:
        """End the job because the sweep is to end; `kind`: interrupted | budget."""
        self.stop = self.stop or Stop(kind=kind)
        self.terminate_s = None
        self.handle.terminate()

    def evidence(self, code: int) -> Evidence:
        """What the job left, once it has gone."""
        world_size = self.planned.cell.sizes.world_size
        kills = self.handle.num_oom_kills()
        return gather(
            self.job.paths, world_size, marker=self.job.marker, code=code, stop=self.stop, num_oom_kills=kills
        )

    def _look(self, now_s: float) -> None:
        if self.handle.is_waiting():  # in somebody else's queue
            self.started_s = now_s
            return
        statuses, is_unreadable = self._rank_files()
        gone = self._silent_ranks(statuses)
        failed = is_unreadable or bool(gone) or any(status.state == "error" for status in statuses)
        # One look proves nothing: a file or a process that cannot be read now may be there again the next time.
        self.failed_s = None if not failed else now_s if self.failed_s is None else self.failed_s
        if self.failed_s is not None and now_s >= self.failed_s + STUCK_GRACE_S:
            self.stop, self.terminate_s = Stop(kind="stuck", gone=gone), now_s
        elif overdue := self._overdue(statuses, now_s):
            limit_s, phase = overdue
            self.stop = Stop(kind="timeout", limit_s=limit_s, phase=phase, gone=gone)
            self.terminate_s = now_s + DUMP_DELAY_S
            self.handle.dump_stacks()

    def _may_be_judged(self, now_s: float) -> bool:
        """Whether every rank file that was ever seen can be read, or has had its time to become readable."""
        self.ended_s = now_s if self.ended_s is None else self.ended_s
        known, unreadable = read_ranks(self.job.paths, self.planned.cell.sizes.world_size)
        is_whole = not unreadable and known.keys() >= self._statuses.keys()
        return is_whole or now_s >= self.ended_s + REREAD_S

    def _rank_files(self) -> tuple[list[RankFile], bool]:
        """What every rank's file said when it could last be read, and whether one cannot be read now."""
        known, unreadable = read_ranks(self.job.paths, self.planned.cell.sizes.world_size)
        self._statuses |= known
        return list(self._statuses.values()), bool(unreadable)

    def _silent_ranks(self, statuses: list[RankFile]) -> frozenset[int]:
        """The ranks that have gone without a word."""
        alive = set(self.handle.pids())
        running = [status for status in statuses if status.state == "running"]
        return frozenset(status.rank for status in running if alive and status.pid not in alive)

    def _overdue(self, statuses: list[RankFile], now_s: float) -> tuple[float, Phase | None] | None:
        """The limit that has passed, with its phase, or None for the limit of the whole cell; else None."""
        whole_s = float(self.planned.cell.config.timeout_s)
        if now_s >= self.started_s + whole_s:
            return whole_s, None
        seen = {status.rank: (_stage(status), self._steps(status.rank)) for status in statuses}
        if seen != self._seen:
            self._seen, self._progress_s, self._is_excused = seen, now_s, False
        phase = self._last_phase(seen)
        if phase != self._phase:
            self._phase, self._phase_s = phase, now_s
        return (self.limits_s[phase], phase) if now_s >= self._progress_s + self.limits_s[phase] else None

    def _steps(self, rank: int) -> int:
        """Steps drawn and issued so far; a count that cannot be read now is no progress when it can be read again."""
        before = self._seen[rank][1] if self._seen and rank in self._seen else 0
        return max(before, read_progress(self.job.paths.beat(rank)))

    def _last_phase(self, seen: Mapping[int, tuple[Phase, int]]) -> Phase:
        """The phase of the rank furthest behind: the others wait for it. A rank without a file has not started."""
        if len(seen) < self.planned.cell.sizes.world_size:
            return PHASES[0]
        return min((stage for stage, _ in seen.values()), key=PHASES.index)


def doing_text(planned: PlannedCell, phase: Phase, seconds: float) -> str:
    """`compiling 1:12`: what a cell has been at, and for how long."""
    is_eager = phase == "compile" and planned.cell.axes["compile"] == "eager"
    return f"{'first step' if is_eager else DOING[phase]} {format_clock(max(0.0, seconds))}"


def describe_running(run: Running, now_s: float, label: str | None = None) -> str:
    """The job's cell, the phase and its time; once it has been silent for long, for how long, and what it is given."""
    name, silence_s = label or run.job.cell.slug, run.silence_s(now_s)
    if silence_s < SILENCE_S:
        doing = run.doing(now_s)
        return f"{name} ({doing})" if doing else name
    phase = run.silent_phase()
    return f"{name} ({SILENT} for {silence_s:.0f} of {run.limits_s[phase]:.0f} s, in {phase})"


def _stage(status: RankFile) -> Phase:
    """The phase that a rank is in; one that is done has only to leave."""
    return PHASES[-1] if status.state == "done" else status.phase
