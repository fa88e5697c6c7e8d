"""The loop over a plan: launch what fits, watch it, judge it, keep a record of each cell as it ends.

It never raises for a cell: whatever goes wrong with one becomes that cell's record.
"""

from contextlib import AbstractContextManager
from functools import partial

import filelock

from benchrunner.core.errors import SweepDirError
from benchrunner.core.faults import parse_faults
from benchrunner.core.paths import SweepPaths
from benchrunner.launch.job import Launcher
from benchrunner.launch.variables import drop_cold_cache
from benchrunner.outcome.evidence import Evidence
from benchrunner.outcome.judge import judge
from benchrunner.outcome.make_record import NO_ATTEMPT
from benchrunner.outcome.outcome import Outcome
from benchrunner.plan.labels import short_labels
from benchrunner.plan.plan import Plan, PlannedCell, processes_of
from benchrunner.run.attempts import attempt_of
from benchrunner.run.clock import now_utc
from benchrunner.run.interrupts import Interrupts
from benchrunner.run.ledger import broken
from benchrunner.run.log_cleaner import LogCleaner
from benchrunner.run.options import RunOptions
from benchrunner.run.order import micro_batch_of
from benchrunner.run.prepare import Prepared, prepare
from benchrunner.run.progress import Progress
from benchrunner.run.watch import Running, describe_running
from benchrunner.store import runs
from benchrunner.store.claims_round import begin_round
from benchrunner.store.runs import ExitSummary

POLL_INTERVAL_S = 0.05

REFUSAL_INTERVAL_S = 1.0
"""Between two askings of the policies while no verdict comes: thousands of cells may wait."""


def run_plan(plan: Plan, paths: SweepPaths, *, launcher: Launcher, options: RunOptions | None = None) -> ExitSummary:
    """Run every cell that is left to run; one record a cell, written as it ends. To be called from the main thread.

    Raises:
        SweepDirError: somebody else is running this sweep, or (resume) it belongs to another machine or software.
        ConfigError: BENCH_FAULT is no fault.
    """
    options = options or RunOptions()
    parse_faults(options.fault)
    started_at = now_utc()
    try:
        with _lock(paths):
            begin_round(paths)
            sweep = Sweep(prepare(plan, paths, launcher, options), launcher, options)
            sweep.events.begin(len(sweep.queue), paths.root)
            try:
                summary = sweep.run(plan)
            finally:
                launcher.close()
            sweep.events.end(summary.counts, summary.exit_code)
            sweep.ledger.keep_run(summary, started_at)
            return summary
    except filelock.Timeout as error:
        raise SweepDirError(f"{paths.root}: another bench is running this sweep") from error


def _lock(paths: SweepPaths) -> AbstractContextManager[object]:
    """Held while the sweep runs.

    Raises:
        SweepDirError: nothing can be written there.
        filelock.Timeout: somebody else holds it.
    """
    try:
        return filelock.FileLock(paths.lock, timeout=0).acquire()
    except filelock.Timeout:
        raise
    except OSError as error:
        raise SweepDirError(f"{paths.root}: cannot be written: {error.strerror or error}") from error


class Sweep:
    """One run over a plan."""

    def __init__(self, prepared: Prepared, launcher: Launcher, options: RunOptions) -> None:
        self.queue, self.attempts, self.devices = prepared.queue, prepared.attempts, prepared.devices
        self.policies, self.verdicts = prepared.policies, prepared.verdicts
        self.searches, self.repeats = prepared.searches, options.repeats
        self.ledger, self.progress, self.source = prepared.ledger, prepared.progress, prepared.source
        self.launcher, self.clock, self.fail_on = launcher, options.clock, options.fail_on
        self.events = prepared.events
        self.cleaner = LogCleaner()
        self.running: list[Running] = []
        self._asked_after, self._asked_s = -1, self.clock.now()  # so they are asked before anything starts
        self._interrupts = Interrupts(self._kill_all)

    def run(self, plan: Plan) -> ExitSummary:
        """Run what waits until nothing does, or somebody asks for a stop."""
        with self.cleaner, self.devices, self._interrupts, self._begin(plan):
            while (self.running or self.source.has_more(self.queue)) and not self._interrupts.is_asked:
                self.turn()
            self._wind_down()
        return self._summarise(plan, self._interrupts.signum)

    def _begin(self, plan: Plan) -> Progress:
        return self.progress.begin(len(self.queue), short_labels(plan.cells), self.ledger.paths.root)

    # --- a turn

    def turn(self) -> None:
        """Everything once: what is not to run, what is to end, what starts, what has ended."""
        self.source.attend(self.clock.now(), self.queue, [run.planned.place for run in self.running])
        self._refuse_what_policies_rule_out()
        self._end_what_may_not_go_on()
        self._start_what_fits()
        self._watch()
        self._drain()

    def _refuse_what_policies_rule_out(self) -> None:
        """Ask about every waiting cell when a verdict has come, and now and then, as time rules out cells too."""
        now_s, num_verdicts = self.clock.now(), self.verdicts.num_concluded
        if num_verdicts == self._asked_after and now_s < self._asked_s + REFUSAL_INTERVAL_S:
            return
        self._asked_after, self._asked_s = num_verdicts, now_s
        self._put_probes_in_line()
        for planned, outcome in self.queue.drop(partial(self.policies.refusal, now_s=now_s)):
            self.verdicts.refuse(planned, outcome)
        self.verdicts.note_refusals()

    def _put_probes_in_line(self) -> None:
        """What searches try next, right before them."""
        for search, probe in self.searches.due(self.queue, [run.planned.place for run in self.running]):
            processes = processes_of([probe], self.repeats or search.cell.config.repeats)
            self.queue.put_before(search, processes)
            self.progress.expect(len(processes), {probe.cell.slug: self._label_of(search, probe)})

    def _label_of(self, search: PlannedCell, probe: PlannedCell) -> str:
        """What a probe is called in a line: as its search, with the size that is tried and its own digits."""
        label = self.progress.label(search.cell.slug).replace(search.cell.cell_id[:6], probe.cell.cell_id[:6])
        sought, tried = f"micro_batch_size {search.cell.search}", f"micro_batch_size {micro_batch_of(probe)}"
        return label.replace(sought, tried) if sought in label else f"{tried} · {label}"

    def _end_what_may_not_go_on(self) -> None:
        kind = self.policies.ending(self.clock.now())
        for run in self.running if kind else ():
            if run.stop is None:
                run.interrupt(str(kind))

    def _start_what_fits(self) -> None:
        started = self.queue.start()
        for planned, places in started:
            self._start(planned, places)
        now_s = self.clock.now()
        if len(self.queue) and self.running:
            self.devices.utilization.waiting(now_s)
        self.devices.report_contention(now_s, is_idle=not self.running and not started)

    def _watch(self) -> None:
        """Wait a moment, then look at every running cell once."""
        now_s = self.clock.now()
        self.progress.report_running([self._describe(run, now_s) for run in self.running])
        self.clock.sleep(POLL_INTERVAL_S)
        for run in list(self.running):
            code = run.step(self.clock.now())
            if code is not None:
                self._end(run, code)

    def _describe(self, run: Running, now_s: float) -> str:
        return describe_running(run, now_s, self.progress.label(run.job.cell.slug))

    def _drain(self) -> None:
        """Take back the devices that are empty; if some never will be, conclude the cells that need them."""
        self.devices.drain(self.clock.now())
        for planned, outcome in self.queue.drop(self.devices.obstacle) if self.devices.pool.lost else ():
            self.verdicts.conclude(planned, outcome)

    # --- a cell's life

    def _start(self, planned: PlannedCell, places: tuple[int, ...]) -> None:
        job, now_s = None, self.clock.now()
        known = self.ledger.records.get(planned.place)
        try:
            job = self.attempts.next_job(planned, places, above=known.attempt if known else 0)
            handle = self.launcher.start(job)
        except Exception as error:  # a cell never takes the sweep down
            self.devices.give_back(places)
            outcome = broken("launch", "the job could not be started", error)
            self.verdicts.conclude(planned, outcome, None, attempt_of(job, 0.0) if job else NO_ATTEMPT)
            return
        self.events.started(planned.cell.slug, job.attempt, places)
        run = Running(planned=planned, job=job, handle=handle, places=places, started_s=now_s)
        run.meet(self.running)
        self.running.append(run)
        self.devices.start(run, now_s)

    def _end(self, run: Running, code: int) -> None:
        now_s = self.clock.now()
        self.running.remove(run)
        self.devices.end(run, now_s)
        drop_cold_cache(run.job.paths)
        outcome, evidence = _judge(run, code)
        self.cleaner.clean(run.job.paths)
        self.devices.learn(run, outcome)
        attempt = attempt_of(run.job, now_s - run.started_s, beside=sorted(run.beside))
        if self.source.is_given_back(outcome, is_stopped=self._is_stopped_by_then(outcome)):
            self.progress.report(f"{run.job.cell.slug}: given back, {outcome.reason}")
        elif why := self._rerun(run, outcome):
            self.source.require_membership()
            self.ledger.conclude(run.planned, outcome, evidence, attempt)
            self.queue.put_first(run.planned)
            self.progress.report(f"{run.job.cell.slug}: {why}")
        else:
            self.verdicts.conclude(run.planned, outcome, evidence, attempt)

    def _is_stopped_by_then(self, outcome: Outcome) -> bool:
        """Whether this loop is told to end: the end of an allocation reaches its jobs too, some of them earlier."""
        if outcome.status == "failed" and not self._interrupts.is_asked:
            self.clock.sleep(self.source.grace_s)
        return self._interrupts.is_asked

    def _rerun(self, run: Running, outcome: Outcome) -> str | None:
        """Why the cell is to run again; nothing runs again that was stopped, or would not be started."""
        if run.stop is not None or self.policies.refusal(run.planned, self.clock.now()) is not None:
            return None
        return self.policies.rerun(run.planned, outcome)

    # --- the end of it

    def _wind_down(self) -> None:
        """End what is still at work, and wait for its verdicts."""
        for run in self.running:
            run.interrupt()
        while self.running:
            self._watch()

    def _kill_all(self) -> None:
        for run in self.running:
            run.handle.kill()

    def _summarise(self, plan: Plan, signum: int | None) -> ExitSummary:
        """Count, and say how well the devices were used."""
        self.verdicts.note_refusals(at_end=True)
        busy_share, concurrency = self.devices.utilization.busy_share(), self.devices.utilization.concurrency()
        if line := runs.usage_line(busy_share, concurrency):
            self.progress.report(line)
        self.source.leave(self.devices.utilization, self.progress.notes)
        return self.ledger.summarise(
            [*plan.cells, *self.searches.added],
            signum,
            fail_on=self.fail_on,
            busy_share=busy_share,
            concurrency=concurrency,
            stopped_by=self.policies.stopped_by,
            notes=self.progress.notes,
        )


def _judge(run: Running, code: int) -> tuple[Outcome, Evidence | None]:
    """The verdict on an attempt, and what it left."""
    evidence = None
    try:
        evidence = run.evidence(code)
        return judge(evidence), evidence
    except Exception as error:  # a cell never takes the sweep down
        return broken("runner", "no verdict could be found", error), evidence
