"""The loop over a plan: launch what fits, watch it, judge it, keep a record of each cell as it ends.

It never raises for a cell: whatever goes wrong with one becomes that cell's record.
"""

import os
import time
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Protocol, Self

import filelock
from rich.console import Console
from rich.status import Status
from rich.text import Text

from benchrunner import environment, progress, resume
from benchrunner.errors import SweepDirError
from benchrunner.evidence import Evidence
from benchrunner.faults import VARIABLE, format_fault, parse_fault
from benchrunner.hardware import Hardware, detect
from benchrunner.interrupts import Interrupts
from benchrunner.launch import Job, Launcher, drop_cold_cache, job_environment
from benchrunner.ledger import ExitSummary, Ledger, broken
from benchrunner.outcome import Outcome, judge
from benchrunner.paths import SweepPaths
from benchrunner.plan import Plan, PlannedCell
from benchrunner.record import Record
from benchrunner.recording import Attempt
from benchrunner.schedule import Queue, make_pool
from benchrunner.watch import Running

POLL_S = 0.05


class Clock(Protocol):
    """The time as the loop sees it."""

    def now(self) -> float:
        """Seconds, monotonic."""

    def sleep(self, seconds: float) -> None:
        """Let time pass."""


class SystemClock:
    """Real time."""

    def now(self) -> float:
        """See Clock."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """See Clock."""
        time.sleep(seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """How a plan is run."""

    resume: bool = False
    """The sweep was run before: the machine and software must be the ones that it was measured with."""
    mix: bool = False
    """Resume although they are not; such records are flagged `mixed_environment`."""
    hardware: Hardware | None = None
    """The machine; null: the plan's, or on resume the one that is here."""
    environment: Mapping[str, Any] | None = None
    """The environment now; null: it is collected."""
    fault: str | None = field(default_factory=lambda: os.environ.get(VARIABLE))
    """What to plant in every worker."""
    clock: Clock = field(default_factory=SystemClock)


def run_plan(plan: Plan, paths: SweepPaths, *, launcher: Launcher, options: RunOptions | None = None) -> ExitSummary:
    """Run every cell that is left to run; one record a cell, written as it ends. To be called from the main thread.

    Raises:
        SweepDirError: somebody else is running this sweep, or (resume) it belongs to another machine or software.
        ConfigError: BENCH_FAULT is no fault.
    """
    options = options or RunOptions()
    parse_fault(options.fault)
    try:
        with filelock.FileLock(paths.lock, timeout=0):
            return Sweep(plan, paths, launcher, options).run()
    except filelock.Timeout as error:
        raise SweepDirError(f"{paths.root}: another bench is running this sweep") from error


class Sweep:
    """One run over a plan."""

    def __init__(self, plan: Plan, paths: SweepPaths, launcher: Launcher, options: RunOptions) -> None:
        now = options.environment or environment.collect()
        kept, flags = resume.settle_environment(paths, now, resume=options.resume, mix=options.mix)
        self.plan, self.paths, self.launcher, self.clock = plan, paths, launcher, options.clock
        self.fault = parse_fault(options.fault)
        self.hardware = options.hardware or (detect() if options.resume else plan.hardware)
        self.pool = make_pool(self.hardware, is_local=launcher.is_local)
        self.ledger = Ledger(paths, resume.read_records(plan.cells, paths), kept, flags)
        self.running: list[Running] = []
        self.teller = Teller(options.clock)

    def run(self) -> ExitSummary:
        """Record what is decided, take over what was finished, run the rest."""
        queue = Queue(self._left_to_run(), self.pool)
        with Interrupts(self._kill_all) as interrupts, self.teller.telling(len(queue)):
            while (len(queue) or self.running) and interrupts.signum is None:
                for planned, places in queue.start():
                    self._start(planned, places)
                self._turn()
            for run in self.running:
                run.interrupt()
            while self.running:
                self._turn()
        return self.ledger.summarise(self.plan.cells, interrupts.signum)

    # --- without a launch

    def _left_to_run(self) -> list[PlannedCell]:
        """The cells that have to be launched; every other one has its record after this."""
        records = self.ledger.records
        left = resume.left_to_do(self.plan.cells, records, self.hardware, format_fault(self.fault))
        slugs = {planned.cell.slug for planned in left}
        others = (planned for planned in self.plan.cells if planned.cell.slug not in slugs)
        self.ledger.decided(planned for planned in others if planned.cell.slug not in records)
        return [planned for planned in left if not self._take_over(planned) and not self._lacks_devices(planned)]

    def _take_over(self, planned: PlannedCell) -> bool:
        """Keep an attempt that reached its end although bench did not live to write its record."""
        record = self.ledger.records.get(planned.cell.slug)
        found = resume.recover(planned, self.paths, known=record.attempt if record else 0)
        if found is not None:
            self._conclude(planned, judge(found[0]), found[0], found[1])
        return found is not None

    def _lacks_devices(self, planned: PlannedCell) -> bool:
        """Record a cell that this machine can never run, whatever the plan thought."""
        obstacle = self.pool.obstacle(planned)
        if obstacle is not None:
            self._conclude(planned, Outcome(status="skipped", reason_code="skipped.devices", reason=obstacle))
        return obstacle is not None

    # --- a cell's life

    def _start(self, planned: PlannedCell, places: tuple[int, ...]) -> None:
        job, now_s = self._make_job(planned, places), self.clock.now()
        try:
            handle = self.launcher.start(job)
        except Exception as error:  # a cell never takes the sweep down
            self.pool.give_back(places)
            self._conclude(planned, broken("launch", "the job could not be started", error), None, _attempt(job, 0.0))
            return
        self.running.append(Running(planned=planned, job=job, handle=handle, places=places, started_s=now_s))

    def _make_job(self, planned: PlannedCell, places: tuple[int, ...]) -> Job:
        place = self.paths.cell(planned.cell.slug)
        number = place.num_attempts() + 1
        return Job(
            cell=planned.cell,
            paths=place.attempt(number),
            devices=places if self.hardware.device_type == "cuda" and self.launcher.is_local else (),
            marker=uuid.uuid4().hex,
            hardware=asdict(self.hardware),
            attempt=number,
            fault=self.fault,
            started_at=datetime.now(UTC).isoformat(timespec="seconds"),
        )

    def _turn(self) -> None:
        """Look at every running cell once, then wait a moment."""
        for run in list(self.running):
            code = run.step(self.clock.now())
            if code is not None:
                self._end(run, code)
        self.teller.show([run.planned for run in self.running])
        self.clock.sleep(POLL_S)

    def _end(self, run: Running, code: int) -> None:
        self.running.remove(run)
        self.pool.give_back(run.places)
        drop_cold_cache(run.job.paths)
        evidence = None
        try:
            evidence = run.evidence(code)
            outcome = judge(evidence)
        except Exception as error:  # a cell never takes the sweep down
            outcome = broken("runner", "no verdict could be found", error)
        self._conclude(run.planned, outcome, evidence, _attempt(run.job, self.clock.now() - run.started_s))

    def _conclude(
        self,
        planned: PlannedCell,
        outcome: Outcome,
        evidence: Evidence | None = None,
        attempt: Attempt | None = None,
    ) -> None:
        self.teller.tell(self.ledger.conclude(planned, outcome, evidence, attempt or Attempt()))

    def _kill_all(self) -> None:
        for run in self.running:
            run.handle.kill()


def _attempt(job: Job, wall_s: float) -> Attempt:
    return Attempt(
        number=job.attempt,
        started_at=job.started_at,
        wall_s=wall_s,
        devices=job.devices,
        fault=format_fault(job.fault),
        hardware=job.hardware,
        environment={"variables": environment.variables(job_environment(job, os.environ))},
    )


class Teller:
    """Progress on stderr: a line a finished cell, and on a terminal a live line below them."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._console = Console(stderr=True)
        self._status = Status("", console=self._console) if self._console.is_terminal else None
        self._started_s = clock.now()
        self._num_done, self._num_cells = 0, 0

    def telling(self, num_cells: int) -> Self:
        """About to run so many cells."""
        self._num_done, self._num_cells, self._started_s = 0, num_cells, self._clock.now()
        return self

    def __enter__(self) -> Self:
        """Begin the live line."""
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """End the live line."""
        if self._status is not None:
            self._status.stop()

    def tell(self, record: Record) -> None:
        """A cell has its record."""
        self._num_done += 1
        total = max(self._num_cells, self._num_done)
        line = progress.finished_line(record, self._num_done, total)
        if self._status is None:
            line = f"{line}  {progress.pace(self._num_done, total, self._elapsed_s())}"
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def show(self, running: list[PlannedCell]) -> None:
        """What is going on now."""
        if self._status is not None:
            slugs = [planned.cell.slug for planned in running]
            pace = progress.pace(self._num_done, self._num_cells, self._elapsed_s())
            self._status.update(Text(f"{pace}; running {progress.shorten(slugs)}"))

    def _elapsed_s(self) -> float:
        return self._clock.now() - self._started_s
