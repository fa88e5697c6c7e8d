"""A sweep on a cluster, followed from outside: allocations are submitted, records reported, what is left is named."""

from collections.abc import Iterable
from dataclasses import dataclass

import filelock

from benchrunner.core.errors import SweepDirError, UsageError
from benchrunner.core.faults import parse_faults
from benchrunner.core.paths import SweepPaths
from benchrunner.launch.allocation import Allocator, hopeless_text
from benchrunner.outcome.outcome import Outcome
from benchrunner.plan.labels import short_labels
from benchrunner.plan.plan import Plan, PlannedCell
from benchrunner.run import resume
from benchrunner.run.allocations import Allocations
from benchrunner.run.claims import Claims
from benchrunner.run.clock import now_utc
from benchrunner.run.cluster_summary import mean_busy_share, num_at_once, stopped_by
from benchrunner.run.events import Events
from benchrunner.run.interrupts import Interrupts
from benchrunner.run.ledger import Ledger
from benchrunner.run.left_over import outcome_of
from benchrunner.run.options import RunOptions
from benchrunner.run.prepare import record_decided
from benchrunner.run.progress import Progress
from benchrunner.run.repeats import Repeats
from benchrunner.run.request import make_request
from benchrunner.store.claims_round import latest_round, next_round
from benchrunner.store.probes import with_probes
from benchrunner.store.records import read_record, read_records
from benchrunner.store.runs import ExitSummary
from benchrunner.store.workers import read_workers

LOOK_INTERVAL_S = 1.0
"""Between two looks at the sweep's directory."""

POLL_INTERVAL_S = 10.0
"""Between two questions to the cluster: schedulers are shared."""

CANCEL_LIMIT_S = 90.0
"""So long jobs have to end after they were cancelled; then they are named and left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Following:
    """How a sweep on a cluster is followed."""

    detach: bool = False
    """Submit and leave."""
    only_watch: bool = False
    """Submit nothing, cancel nothing, write nothing."""


def follow_plan(
    plan: Plan, paths: SweepPaths, allocator: Allocator, options: RunOptions, how: Following
) -> ExitSummary | None:
    """Have every cell run that is left to run, on allocations; None when they were left to themselves (`detach`).

    Raises:
        SweepDirError: another bench follows this sweep.
        UsageError: the cluster refuses an allocation, or does not answer.
    """
    if how.only_watch:
        return Follower(plan, paths, allocator, options, how).run()
    parse_faults(options.fault)
    started_at = now_utc()
    try:
        with filelock.FileLock(paths.lock, timeout=0):
            follower = Follower(plan, paths, allocator, options, how)
            summary = follower.run()
            if summary is not None:
                follower.events.end(summary.counts, summary.exit_code)
                follower.ledger.keep_run(summary, started_at)
            return summary
    except filelock.Timeout as error:
        raise SweepDirError(f"{paths.root}: another bench is running this sweep") from error


class Follower:
    """One run over a plan whose cells run elsewhere."""

    def __init__(
        self, plan: Plan, paths: SweepPaths, allocator: Allocator, options: RunOptions, how: Following
    ) -> None:
        self.plan, self.paths, self.options, self.how = plan, paths, options, how
        self.clock, self.progress = options.clock, Progress(options.clock)
        self.events = Events(options.events)
        records, problems = read_records(plan.processes(options.repeats), paths)
        for problem in problems:
            self.progress.note(problem)
        self.ledger = Ledger(paths, records, {}, [])
        self.allocations = Allocations(allocator, paths, plan.settings.launcher.name)
        self.left: dict[str, PlannedCell] = {}
        """Place → cell without a verdict of this round."""
        self._claims: Claims
        self._round = 1
        self._num_reported = self._num_reported_before = 0
        """Now, and when the allocations of now were submitted."""
        self._num_vain = 0
        self._polled_s = self.clock.now()
        self._said = ""

    def run(self) -> ExitSummary | None:
        """Follow until every cell has its verdict, somebody asks for a stop, or nobody works any more."""
        self._take_stock()
        self.events.begin(len(self.left), self.paths.root)
        if self.left and not self.allocations.states and not self.how.only_watch:
            self._submit()
        if self.how.detach:
            return None
        with Interrupts(lambda: None) as interrupts, self._begin():
            while self.left and interrupts.signum is None and (not self.allocations.all_ended() or self._again()):
                self._look()
                self.clock.sleep(LOOK_INTERVAL_S)
            signum = interrupts.signum
            if not self.how.only_watch:
                self._wind_down()
        return self._summarise(signum)

    def _begin(self) -> Progress:
        return self.progress.begin(len(self.left), short_labels(self.plan.cells), self.paths.root)

    def _called(self, planned: PlannedCell) -> str:
        process = "" if planned.repeat == 1 else f" (process {planned.repeat})"
        return self.progress.label(planned.cell.slug) + process

    # --- before

    def _take_stock(self) -> None:
        """Adopt what runs; else a new round begins, in which only the cells count that are left and selected."""
        adopted = self.allocations.adopt()
        processes = self.plan.processes(self.options.repeats)
        cells = resume.left_to_do(
            processes,
            self.ledger.records,
            self.plan.hardware,
            self.options.planted,
            keep_inferred=self.options.infer,
        )
        if not self.how.only_watch:
            record_decided(self.plan, cells, self.ledger)
        if adopted or self.how.only_watch:
            self._round = latest_round(self.paths)
            self.progress.report(f"following jobs {', '.join(adopted)}" if adopted else "no job of this sweep is left")
        else:
            self._round = next_round(self.paths)
        self._claims = Claims(self.paths.claims(self._round), "follower", lambda worker: False)
        self._claims.look()
        chosen = self._chosen(cells)
        if not adopted:
            for planned in set_apart(cells, chosen):
                self._claims.finish(planned.place)
        self.left = {one.place: one for one in chosen if one.place not in self._claims.finished}

    def _chosen(self, cells: Iterable[PlannedCell]) -> list[PlannedCell]:
        """Those that this run is about, but for repeats that no worker would start."""
        takes, records = self.options.selection.takes, self.ledger.records
        repeats = Repeats(records.values())
        return [one for one in cells if takes(one, records.get(one.place)) and repeats.refusal(one, 0.0) is None]

    def _submit(self) -> None:
        request = make_request(self.plan, list(self.left.values()), self.paths, self.options, self._round)
        count = min(self.plan.settings.launcher.jobs, len(self.left))
        jobs = self.allocations.submit(request, count)
        self._num_reported_before = self._num_reported
        self.progress.report(f"submitted {', '.join(jobs)}: {request.nodes} node(s) for {request.time_min} min each")

    # --- a turn

    def _look(self) -> None:
        """Report new records; now and then, ask the cluster."""
        self._add_probes()
        self._claims.look()
        for place in sorted(self._claims.finished & self.left.keys()):
            self._report(self.left.pop(place))
        now_s = self.clock.now()
        if now_s >= self._polled_s + POLL_INTERVAL_S:
            self._polled_s = now_s
            self.allocations.poll()
            self._say(f"allocations: {self.allocations.describe()}")
            self._require_hope()
            if self._is_all_taken():
                self._cancel_waiting()
        at_work = {
            place for worker in read_workers(self.paths) if worker.state == "working" for place in worker.running
        }
        self.progress.report_running([self._called(one) for one in self.left.values() if one.place in at_work])

    def _add_probes(self) -> None:
        """What searches have added to the sweep since."""
        known = {planned.place for planned in self.plan.processes(self.options.repeats)}
        self.plan = with_probes(self.plan, self.paths)
        added = [one for one in self.plan.processes(self.options.repeats) if one.place not in known]
        self.left |= {one.place: one for one in added}
        if added:
            self.progress.expect(len(added), short_labels(self.plan.cells))

    def _report(self, planned: PlannedCell) -> None:
        self._num_reported += 1
        record, problem = read_record(self.paths.cell(planned.place).record, planned)
        if problem:
            self.progress.note(problem)
        if record is not None:
            self.ledger.records[record.place] = record
            self.progress.report_finished(record)
            self.events.finished(record)

    def _say(self, line: str) -> None:
        if line != self._said:
            self._said = line
            self.progress.report(line)

    def _require_hope(self) -> None:
        """Not where somebody only watches.

        Raises:
            UsageError: no allocation can ever start.
        """
        if not self.how.only_watch and (why := self.allocations.hopeless()):
            self.allocations.cancel()
            raise UsageError(
                f"{hopeless_text(why)}; its jobs were cancelled "
                "(see launcher.partition, launcher.time_min, launcher.cpus_per_task, launcher.mem)"
            )

    def _is_all_taken(self) -> bool:
        return all(self._claims.owner(place) is not None for place in self.left)

    def _cancel_waiting(self) -> None:
        """What waits in the queue would find nothing to do."""
        if not self.how.only_watch and any(one.phase == "running" for one in self.allocations.states.values()):
            self.allocations.cancel(["waiting"])

    def _again(self) -> bool:
        """All allocations have ended and cells are left: whether others were asked for.

        Not when somebody cancelled them, nor when they failed before the first cell, as the next ones would too.
        """
        self._look_once_more()
        if not self.left or self.how.only_watch or not self.allocations.states:
            return False
        is_vain, ends = self._num_reported == self._num_reported_before, self.allocations.ends()
        if "cancelled" in ends or (is_vain and ends & {"failed", "out_of_memory"}):
            return False
        self._num_vain = self._num_vain + 1 if is_vain else 0
        if self._num_vain > self.plan.settings.retries:
            return False
        self.progress.report(f"{len(self.left)} cells are left: asking for more ({self._said})")
        self._submit()
        return True

    def _look_once_more(self) -> None:
        self._polled_s = self.clock.now()
        self._look()

    # --- the end of it

    def _wind_down(self) -> None:
        """Leave nothing in the cluster, then say what became of the cells that have no verdict."""
        is_interrupted = bool(self.left) and not self.allocations.all_ended()
        if not self.left:
            self._wait_for_jobs(CANCEL_LIMIT_S / 3)
        self.allocations.cancel()
        self._wait_for_jobs(CANCEL_LIMIT_S)
        if not self.allocations.all_ended():
            self.progress.note(f"jobs were cancelled and are still there: {self.allocations.describe()}")
        self._look_once_more()
        self.allocations.clean_logs()
        for planned in list(self.left.values()):
            self._conclude(planned, is_interrupted)

    def _wait_for_jobs(self, limit_s: float) -> None:
        """With a signal in between nobody asks the cluster every second."""
        end_s = self.clock.now() + limit_s
        while not self.allocations.all_ended() and self.clock.now() < end_s:
            self.clock.sleep(2 * LOOK_INTERVAL_S)
            self.allocations.poll()

    def _conclude(self, planned: PlannedCell, is_interrupted: bool) -> None:
        """A further process of a cell that was not measured leaves no record."""
        if planned.repeat > 1:
            return
        if is_interrupted:
            outcome = Outcome(
                status="skipped", reason_code="skipped.interrupted", reason="bench was told to stop before it ended"
            )
        else:
            outcome = outcome_of(self._claims.owner(planned.place), self.allocations, self.paths)
        self.ledger.skip(planned, outcome)
        self.events.finished(self.ledger.records[planned.place])

    def _summarise(self, signum: int | None) -> ExitSummary:
        workers = [worker for worker in read_workers(self.paths) if worker.job in self.allocations.states]
        return self.ledger.summarise(
            self.plan.cells,
            signum,
            fail_on=self.options.fail_on,
            busy_share=mean_busy_share(workers),
            concurrency=num_at_once(workers),
            stopped_by=stopped_by(self.ledger.records.values()),
            notes=[*self.progress.notes, *dict.fromkeys(note for worker in workers for note in worker.notes)],
        )


def set_apart(cells: Iterable[PlannedCell], chosen: Iterable[PlannedCell]) -> list[PlannedCell]:
    """The cells that were not chosen."""
    places = {planned.place for planned in chosen}
    return [planned for planned in cells if planned.place not in places]
