"""A cell's verdict on its way: into its record, onto the screen, and to the policies that learn from it."""

from collections import Counter

from benchrunner.core.faults import format_fault
from benchrunner.outcome.evidence import Evidence
from benchrunner.outcome.make_record import NO_ATTEMPT, Attempt
from benchrunner.outcome.outcome import Outcome
from benchrunner.plan.plan import PlannedCell
from benchrunner.run.events import Events
from benchrunner.run.ledger import Ledger
from benchrunner.run.options import RunOptions
from benchrunner.run.policies import Policies
from benchrunner.run.progress import Progress
from benchrunner.run.source import Source


class Verdicts:
    """Every final verdict of a run passes here."""

    def __init__(
        self,
        ledger: Ledger,
        progress: Progress,
        policies: Policies,
        options: RunOptions,
        events: Events,
        source: Source,
    ) -> None:
        self.num_concluded = 0
        self.num_refused: Counter[str] = Counter()
        """Reason code → cells that a policy did not let run."""
        self._events = events
        self._ledger, self._progress, self._policies, self._options = ledger, progress, policies, options
        self._source = source

    def conclude(
        self, planned: PlannedCell, outcome: Outcome, evidence: Evidence | None = None, attempt: Attempt = NO_ATTEMPT
    ) -> None:
        """This is what became of a cell; a further process of it that was not launched leaves no record."""
        self._source.require_membership()
        self.num_concluded += 1
        if planned.repeat > 1 and not attempt.number:
            self._source.conclude(planned)
            return
        record = self._ledger.conclude(planned, outcome, evidence, attempt)
        self._source.conclude(planned)
        self._progress.report_finished(record)
        self._events.finished(record)
        self._policies.learn(planned, record)
        if record.repeat > 1 and record.status != "ok":
            self._progress.note(f"process {record.repeat} of {record.slug}: {record.reason_code}: {record.reason}")

    def refuse(self, planned: PlannedCell, outcome: Outcome) -> None:
        """A policy does not let a cell run: it is skipped, or its verdict follows from that of another cell."""
        self.num_refused[str(outcome.reason_code)] += 1
        if outcome.status == "skipped":
            self._source.require_membership()
            if planned.repeat == 1:
                self._ledger.skip(planned, outcome)
                self._policies.refused(planned, outcome)
            self._source.conclude(planned)
        else:
            fault = format_fault(self._options.fault_in(planned.cell.slug))
            self.conclude(planned, outcome, None, Attempt(fault=fault))

    def note_refusals(self, *, at_end: bool = False) -> None:
        """Say what a reader must know about cells that were skipped."""
        for note in self._policies.notes(self.num_refused, at_end=at_end):
            self._progress.note(note)
