"""A sweep that another bench runs on this machine, seen from its files: records as they come, phases meanwhile."""

import time

import filelock

from benchrunner.core.paths import SweepPaths
from benchrunner.core.record import PHASES
from benchrunner.outcome.evidence import read_ranks
from benchrunner.plan.labels import short_labels
from benchrunner.plan.plan import Plan, PlannedCell
from benchrunner.run.clock import Clock
from benchrunner.run.interrupts import Interrupts
from benchrunner.run.ledger import Ledger
from benchrunner.run.progress import Progress
from benchrunner.run.watch import doing_text
from benchrunner.store.probes import with_probes
from benchrunner.store.records import read_record, read_records
from benchrunner.store.runs import ExitSummary

LOOK_INTERVAL_S = 1.0
"""Between two looks at the sweep's directory."""


def observe(plan: Plan, paths: SweepPaths, clock: Clock) -> ExitSummary:
    """Report every record that comes until nobody runs the sweep any more, or a signal comes. Changes nothing."""
    observer = Observer(plan, paths, clock)
    with Interrupts(lambda: None) as interrupts, observer.progress:
        while interrupts.signum is None and is_run(paths):
            observer.look()
            clock.sleep(LOOK_INTERVAL_S)
        observer.look()
    return Ledger(paths, observer.records, {}, []).summarise(observer.plan.cells, interrupts.signum)


def is_run(paths: SweepPaths) -> bool:
    """Whether a bench has the sweep now; where nothing can be locked nobody can say, and it counts as ended."""
    try:
        if paths.lock.exists():
            filelock.FileLock(paths.lock, timeout=0).acquire().lock.release()
    except filelock.Timeout:
        return True
    except OSError:
        return False
    return False


class Observer:
    """What has been seen of a sweep so far."""

    def __init__(self, plan: Plan, paths: SweepPaths, clock: Clock) -> None:
        self.plan, self.paths = plan, paths
        self.records, problems = read_records(plan.processes(), paths)
        self._changed = {planned.place: self._changed_ns(planned) for planned in self._running()}
        """Place → when its record was last written; None: there is none."""
        waiting = sum(changed is None for changed in self._changed.values())
        self.progress = Progress(clock).begin(waiting, short_labels(plan.cells), paths.root)
        for problem in problems:
            self.progress.note(problem)
        self.progress.report(f"{len(self._changed) - waiting} of {len(self._changed)} cells have their records")

    def look(self) -> None:
        """Report the records that were written since the last look, and what the cells without one are at."""
        self._add_probes()
        at_work = []
        for planned in self._running():
            changed = self._changed_ns(planned)
            if changed != self._changed.get(planned.place):
                self._changed[planned.place] = changed
                self._report(planned)
            elif changed is None and (doing := self._doing(planned)):
                at_work.append(f"{self.progress.label(planned.cell.slug)} ({doing})")
        self.progress.report_running(at_work)

    def _running(self) -> list[PlannedCell]:
        return [planned for planned in self.plan.processes() if planned.verdict == "run"]

    def _add_probes(self) -> None:
        """What searches have added to the sweep since."""
        before = len(self.plan.cells)
        self.plan = with_probes(self.plan, self.paths)
        if len(self.plan.cells) > before:
            self.progress.expect(len(self.plan.cells) - before, short_labels(self.plan.cells))

    def _changed_ns(self, planned: PlannedCell) -> int | None:
        try:
            return self.paths.cell(planned.place).record.stat().st_mtime_ns
        except OSError:
            return None

    def _report(self, planned: PlannedCell) -> None:
        record, problem = read_record(self.paths.cell(planned.place).record, planned)
        if problem:
            self.progress.note(problem)
        if record is not None:
            self.records[record.place] = record
            self.progress.report_finished(record)

    def _doing(self, planned: PlannedCell) -> str | None:
        """Where the rank is that the others wait for, and since when; None: no rank has begun."""
        place = self.paths.cell(planned.place)
        if not place.root.is_dir() or not (number := place.last_attempt()):
            return None
        ranks, _ = read_ranks(place.attempt(number), planned.cell.sizes.world_size)
        if not ranks:
            return None
        last = min(ranks.values(), key=lambda rank: PHASES.index(rank.phase))
        return doing_text(planned, last.phase, time.time() - last.phase_started_at)
