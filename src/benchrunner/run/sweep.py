"""The loop over a plan: launch what fits, watch it, judge it, keep a record of each cell as it ends.

It never raises for a cell: whatever goes wrong with one becomes that cell's record.
"""

import os
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import filelock

from benchrunner.core.environment import Environment
from benchrunner.core.errors import SweepDirError
from benchrunner.core.faults import VARIABLE, Fault, format_fault, parse_fault
from benchrunner.core.paths import SweepPaths
from benchrunner.launch.job import Job, Launcher
from benchrunner.launch.variables import drop_cold_cache, job_environment
from benchrunner.machine import environment
from benchrunner.machine.devices import Locks, Probe, local_devices
from benchrunner.machine.hardware import Hardware, detect, machine_facts
from benchrunner.outcome.evidence import Evidence
from benchrunner.outcome.judge import Outcome, judge
from benchrunner.outcome.make_record import Attempt
from benchrunner.plan.plan import Plan, PlannedCell
from benchrunner.run import resume
from benchrunner.run.budget import Budget
from benchrunner.run.circuit_breaker import Brake
from benchrunner.run.infer_oom import Inference
from benchrunner.run.interrupts import Interrupts
from benchrunner.run.ledger import Ledger, broken
from benchrunner.run.order import order_by_information, smaller_first, smaller_first_in_place
from benchrunner.run.progress_console import Clock, Teller
from benchrunner.run.resume import Selection
from benchrunner.run.schedule import Queue, make_pool
from benchrunner.run.utilization import Usage
from benchrunner.run.watch import Draining, Running
from benchrunner.store import environment_file, runs
from benchrunner.store.records import read_records
from benchrunner.store.runs import ExitSummary

POLL_S = 0.05

DRAIN_S = 60.0
"""A device that is not empty so long after its cell has ended is not used any more."""

CONTENDED_S = 10.0
"""After waiting so long for another sweep it is told."""


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
    environment: Environment | None = None
    """The environment now; null: it is collected."""
    fault: str | None = field(default_factory=lambda: os.environ.get(VARIABLE))
    """What to plant in every worker."""
    clock: Clock = field(default_factory=SystemClock)
    budget_s: float | None = None
    """Start no cell that is expected not to end within so many seconds, the most informative first; null: run all."""
    infer: bool = True
    """Let a micro-batch that ran out of device memory decide the larger ones of the same cell."""
    selection: Selection = field(default_factory=Selection)
    """Which of the cells that are left are run."""
    probe: Probe | None = None
    """What looks at the devices from outside; null: the driver."""
    locks: Locks | None = None
    """Between this sweep and others on the same devices; null: the user's own."""


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
        records, problems = read_records(plan.cells, paths)
        kept, flags, notes = environment_file.settle_environment(
            paths, now, records, resume=options.resume, mix=options.mix
        )
        self.plan, self.paths, self.launcher, self.clock = plan, paths, launcher, options.clock
        self.fault = parse_fault(options.fault)
        self.hardware = options.hardware or (detect() if options.resume else plan.hardware)
        probe, locks = local_devices(self.hardware, is_local=launcher.is_local, environ=os.environ)
        self.probe, self.locks = options.probe or probe, options.locks or locks
        self.pool = make_pool(self.hardware, is_local=launcher.is_local, locks=self.locks)
        self.ledger = Ledger(paths, records, kept, flags)
        self.queue = Queue([], self.pool)
        self.running: list[Running] = []
        self.draining: list[Draining] = []
        self.usage = Usage(self.pool.num_devices if launcher.is_local else 0)
        self.teller = Teller(options.clock)
        self.notes: list[str] = [*problems, *notes, *filter(None, [runs.read_runs(paths)[1]])]
        self.started_at = now_utc()
        self.options = options
        settings = plan.cells[0].cell.config
        self.brake = Brake(settings.get("brake"))
        self.num_retries = int(settings.get("retries") or 0)
        self.stopped_by: str | None = None
        self._retried: Counter[str] = Counter()
        self._contended_s: float | None = None
        comparable = {slug: one for slug, one in self.ledger.records.items() if one.fault == self._fault_text(slug)}
        self.inference = Inference(plan.cells, comparable) if options.infer else None
        self.budget: Budget | None = None
        if options.budget_s is not None:
            self.budget = Budget(options.budget_s, self.clock.now(), self.hardware.device_type)
        self.num_over_budget = 0

    def run(self) -> ExitSummary:
        """Record what is decided, take over what was finished, run the rest."""
        for note in self.notes:
            self.teller.say(note)
        try:
            return self._run()
        finally:
            self.locks.close()

    def _run(self) -> ExitSummary:
        self.queue = Queue(self._in_order(self._left_to_run()), self.pool, largest_first=self.budget is None)
        with Interrupts(self._kill_all) as interrupts, self.teller.telling(len(self.queue)):
            while (len(self.queue) or self.running) and interrupts.signum is None:
                self._keep_to_budget()
                self._start_what_fits()
                self._turn()
                self._drain()
            for run in self.running:
                run.interrupt()
            while self.running:
                self._turn()
        return self._summarise(interrupts.signum)

    # --- without a launch

    def _left_to_run(self) -> list[PlannedCell]:
        """The cells that have to be launched; every other one has its record after this."""
        records = self.ledger.records
        fault, infer = format_fault(self.fault), self.options.infer
        left = resume.left_to_do(self.plan.cells, records, self.hardware, fault, keep_inferred=infer)
        left = [one for one in left if self.options.selection.takes(one, records.get(one.cell.slug))]
        slugs = {planned.cell.slug for planned in left}
        others = [planned for planned in self.plan.cells if planned.cell.slug not in slugs and planned.verdict != "run"]
        self.ledger.decided(planned for planned in others if planned.cell.slug not in records)
        left = [planned for planned in left if not self._take_over(planned)]
        return [planned for planned in left if not self._lacks_devices(planned) and not self._is_inferred(planned)]

    def _in_order(self, cells: list[PlannedCell]) -> list[PlannedCell]:
        """Smaller micro-batches before larger ones; under a budget the most informative cells first."""
        if self.budget is None:
            return smaller_first(cells)
        costs_s = {planned.cell.slug: self.budget.expected_s(planned) for planned in cells}
        return smaller_first_in_place(order_by_information(cells, costs_s))

    def _take_over(self, planned: PlannedCell) -> bool:
        """Keep an attempt that reached its end although bench did not live to write its record."""
        record = self.ledger.records.get(planned.cell.slug)
        found = resume.recover(planned, self.paths, known=record.attempt if record else 0, note=self._note)
        if found is not None:
            self._conclude(planned, judge(found[0]), found[0], found[1])
        return found is not None

    def _lacks_devices(self, planned: PlannedCell) -> bool:
        """Record a cell that this machine can never run, whatever the plan thought."""
        obstacle = self.pool.obstacle(planned)
        if obstacle is not None:
            self._conclude(planned, Outcome(status="skipped", reason_code="skipped.devices", reason=obstacle))
        return obstacle is not None

    def _is_inferred(self, planned: PlannedCell) -> bool:
        """Record a cell whose verdict follows from that of a smaller one."""
        outcome = self.inference.verdict(planned) if self.inference else None
        if outcome is not None:
            self._conclude(planned, outcome, None, Attempt(fault=self._fault_text(planned.cell.slug)))
        return outcome is not None

    def _keep_to_budget(self) -> None:
        """Skip what does not fit the rest of the time any more; end what is still at work long after it."""
        if self.budget is None:
            return
        now_s = self.clock.now()
        refused = {planned.cell.slug: self.budget.refusal(planned, now_s) for planned in self.queue}
        for planned in self.queue.drop(lambda planned: refused[planned.cell.slug]):
            self.num_over_budget += 1
            self.ledger.skip([planned], "skipped.budget", f"not started: {refused[planned.cell.slug]}")
        for run in self.running if self.budget.is_over(now_s) else ():
            if run.stop is None:
                run.interrupt("budget")

    # --- a cell's life

    def _start_what_fits(self) -> None:
        started = self.queue.start()
        for planned, places in started:
            self._start(planned, places)
        if len(self.queue) and self.running:
            self.usage.waiting(self.clock.now())
        self._tell_contention(is_contended=self.pool.is_contended and not self.running and not started)

    def _start(self, planned: PlannedCell, places: tuple[int, ...]) -> None:
        job, now_s = self._make_job(planned, places), self.clock.now()
        try:
            handle = self.launcher.start(job)
        except Exception as error:  # a cell never takes the sweep down
            self.pool.give_back(places)
            self._conclude(planned, broken("launch", "the job could not be started", error), None, _attempt(job, 0.0))
            return
        run = Running(planned=planned, job=job, handle=handle, places=places, started_s=now_s)
        run.meet(self.running)
        self.running.append(run)
        self.usage.start(job.marker, len(places), now_s)

    def _make_job(self, planned: PlannedCell, places: tuple[int, ...]) -> Job:
        place = self.paths.cell(planned.cell.slug)
        number = place.num_attempts() + 1
        return Job(
            cell=planned.cell,
            paths=place.attempt(number),
            devices=places[: planned.cell.sizes.devices] if self._hands_out_devices() else (),
            marker=uuid.uuid4().hex,
            hardware=machine_facts(self.hardware),
            attempt=number,
            fault=self._fault_in(planned.cell.slug),
            started_at=now_utc(),
        )

    def _fault_in(self, slug: str) -> Fault | None:
        return self.fault if self.fault and self.fault.is_planted_in(slug) else None

    def _fault_text(self, slug: str) -> str | None:
        return format_fault(self._fault_in(slug))

    def _turn(self) -> None:
        """Wait a moment, then look at every running cell once."""
        self.teller.show([run.planned for run in self.running])
        self.clock.sleep(POLL_S)
        for run in list(self.running):
            code = run.step(self.clock.now())
            if code is not None:
                self._end(run, code)

    def _end(self, run: Running, code: int) -> None:
        now_s = self.clock.now()
        self.running.remove(run)
        self.usage.end(run.job.marker, now_s)
        self.draining.append(Draining(run=run, since_s=now_s))
        drop_cold_cache(run.job.paths)
        evidence = None
        try:
            evidence = run.evidence(code)
            outcome = judge(evidence)
        except Exception as error:  # a cell never takes the sweep down
            outcome = broken("runner", "no verdict could be found", error)
        attempt = _attempt(run.job, now_s - run.started_s, beside=sorted(run.beside))
        if self.budget is not None and outcome.status == "ok":
            self.budget.learn(run.planned, now_s - run.started_s)
        if not self._tries_again(run, outcome, evidence, attempt):
            self._conclude(run.planned, outcome, evidence, attempt)

    def _tries_again(self, run: Running, outcome: Outcome, evidence: Evidence | None, attempt: Attempt) -> bool:
        """Whether the cell waits for another attempt, because its failure was one of infrastructure."""
        slug = run.job.cell.slug
        if outcome.reason_code != "failed.infrastructure":
            return False
        self._give_up_broken_device(run, outcome)
        if self._retried[slug] >= self.num_retries or run.stop is not None or self.stopped_by:
            return False
        self._retried[slug] += 1
        self.ledger.conclude(run.planned, outcome, evidence, attempt)
        self.queue.put_first(run.planned)
        self.teller.say(f"{slug}: {outcome.reason}; trying again ({self._retried[slug]} of {self.num_retries})")
        return True

    def _give_up_broken_device(self, run: Running, outcome: Outcome) -> None:
        found = outcome.evidence or {}
        rank = found.get("rank")
        if found.get("infrastructure") == "device_lost" and rank is not None and run.job.devices:
            device = run.job.devices[rank % len(run.job.devices)]
            if device not in self.pool.lost:
                self._lose(device, f"device {device} failed under {run.job.cell.slug}")

    # --- devices

    def _hands_out_devices(self) -> bool:
        return self.hardware.device_type == "cuda" and self.launcher.is_local

    def _drain(self) -> None:
        """Hand devices out again once they are empty; give those up that do not become so."""
        now_s = self.clock.now()
        for left in list(self.draining):
            held = left.held(self.probe)
            self.pool.give_back(set(left.run.places) - set(held))
            left.run.places = tuple(held)
            if now_s >= left.since_s + DRAIN_S:
                for device, why in held.items():
                    self._lose(device, f"device {device} did not become empty after {left.run.job.cell.slug}: {why}")
                held = {}
            if not held:
                self.draining.remove(left)
        if self.pool.lost:
            self.queue.drop(self._lacks_devices)

    def _lose(self, device: int, why: str) -> None:
        self.pool.quarantine(device, why)
        self._note(f"{why}; it is not used any more, {self.pool.num_usable} of {self.pool.num_devices} are left")

    def _tell_contention(self, *, is_contended: bool) -> None:
        """Say once that this sweep waits for another one."""
        now_s = self.clock.now()
        if not is_contended:
            self._contended_s = None
        elif self._contended_s is None:
            self._contended_s = now_s
        elif 0 <= self._contended_s <= now_s - CONTENDED_S:
            self.teller.say("waiting for devices that another bench of yours uses")
            self._contended_s = -1.0

    def _note(self, text: str) -> None:
        self.notes.append(text)
        self.teller.say(text)

    # --- the end of it

    def _conclude(
        self,
        planned: PlannedCell,
        outcome: Outcome,
        evidence: Evidence | None = None,
        attempt: Attempt | None = None,
    ) -> None:
        record = self.ledger.conclude(planned, outcome, evidence, attempt or Attempt())
        self.teller.tell(record)
        if self.inference and self.inference.learn(planned, record):
            self.queue.drop(self._is_inferred)
        if (why := self.brake.see(record)) and self.stopped_by is None:
            self._stop("brake", why)

    def _stop(self, kind: str, why: str) -> None:
        """Start no more cells; those that run end by themselves."""
        self.stopped_by = kind
        left = self.queue.drop(lambda planned: True)
        self.ledger.skip(left, f"skipped.{kind}", f"not started, because {why}")
        self._note(f"stopped early, {len(left)} cells were not started: {why}")

    def _summarise(self, signum: int | None) -> ExitSummary:
        """Count, say how well the devices were used, and leave both in the sweep's directory."""
        if self.num_over_budget:
            self._note(f"{self.num_over_budget} cells were not started, because they do not fit the budget")
        used = {"busy_share": self.usage.busy_share(), "concurrency": self.usage.concurrency()}
        if line := runs.usage_line(**used):
            self.teller.say(line)
        more: dict[str, Any] = {"stopped_by": self.stopped_by, "notes": self.notes}
        summary = self.ledger.summarise(self.plan.cells, signum, **used, **more)
        self.ledger.keep_run(summary, self.started_at)
        return summary

    def _kill_all(self) -> None:
        for run in self.running:
            run.handle.kill()


def now_utc() -> str:
    """The stamp of this moment; only ever shown, never subtracted: a clock may jump."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _attempt(job: Job, wall_s: float, beside: Sequence[str] = ()) -> Attempt:
    return Attempt(
        number=job.attempt,
        started_at=job.started_at,
        wall_s=wall_s,
        devices=job.devices,
        beside=beside,
        fault=format_fault(job.fault),
        hardware=job.hardware,
        environment={"variables": environment.variables(job_environment(job, os.environ))},
    )
