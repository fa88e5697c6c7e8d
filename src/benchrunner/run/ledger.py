"""The records of a sweep while it runs: each is made, written and remembered here."""

import json
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from benchrunner.core.environment import Environment
from benchrunner.core.files import write_json
from benchrunner.core.paths import SweepPaths
from benchrunner.core.record import Record, record_to_dict
from benchrunner.core.text import first_line
from benchrunner.outcome.evidence import Evidence
from benchrunner.outcome.make_record import NO_ATTEMPT, Attempt, earlier_attempts, make_record
from benchrunner.outcome.outcome import Outcome
from benchrunner.plan.plan import PlannedCell
from benchrunner.plan.verdict import PREDICTED_ONLY
from benchrunner.store.runs import BAD_STATUSES, ExitSummary, add_run


class Ledger:
    """Place → record: see `PlannedCell.place`."""

    def __init__(
        self,
        paths: SweepPaths,
        records: dict[str, Record],
        environment: Environment,
        flags: Sequence[str],
    ) -> None:
        self.paths, self.records, self.environment, self.flags = paths, records, environment, flags

    def decided(self, cells: Iterable[PlannedCell]) -> None:
        """Records of cells whose verdict stands in the plan; they can be rebuilt from it, so none is synced."""
        for planned in cells:
            assert planned.verdict != "run", planned.cell.slug
            outcome = Outcome(
                status=planned.verdict,
                reason_code=planned.reason_code,
                reason=planned.reason,
                evidence=planned.evidence,
            )
            self._keep(make_record(planned, outcome), sync=False)

    def conclude(
        self,
        planned: PlannedCell,
        outcome: Outcome,
        evidence: Evidence | None = None,
        attempt: Attempt = NO_ATTEMPT,
        *,
        sync: bool = True,
    ) -> Record:
        """Make and keep the record of a cell. Never raises: what goes wrong becomes the cell's verdict."""
        if attempt.number:
            known: Environment = {**self.environment, **attempt.environment}
            earlier = earlier_attempts(self.records.get(planned.place), attempt.number)
            attempt = replace(attempt, environment=known, flags=self.flags, earlier=earlier)
        try:
            record = make_record(planned, outcome, evidence, attempt)
            json.dumps(record_to_dict(record), allow_nan=False)
        except Exception as error:  # a rank's result of the wrong form ends here
            record = make_record(planned, broken("runner", "the record could not be made", error), None, attempt)
        try:
            self.paths.require()
            self._keep(record, sync=sync)
        except OSError as error:  # a full disk loses this record, and no other
            verdict = broken("write", "the record could not be written", error)
            record = make_record(planned, verdict, None, attempt)
            self.records[record.place] = record
        return record

    def skip(self, planned: PlannedCell, outcome: Outcome) -> None:
        """A cell is not started; a verdict that it had from an attempt before stays."""
        before = self.records.get(planned.place)
        if before is None or before.attempt == 0:
            self.conclude(planned, outcome, sync=False)

    def summarise(
        self, cells: Iterable[PlannedCell], interrupted_by: int | None, *, fail_on: Collection[str] = (), **more: Any
    ) -> ExitSummary:
        """Counts over all cells of the plan, and which of the statuses and codes `fail_on` there are."""
        worst = {record.slug: record for record in self.records.values() if record.status in BAD_STATUSES}
        records = [worst.get(planned.cell.slug) or self.records.get(planned.place) for planned in cells]
        happened = {word for record in records if record for word in (record.status, record.reason_code)}
        return ExitSummary(
            counts=dict(Counter(record.status if record else "skipped" for record in records)),
            num_attempted=sum(record is not None and record.attempt > 0 for record in records),
            interrupted_by=interrupted_by,
            num_predicted=sum(record is not None and record.reason_code == PREDICTED_ONLY for record in records),
            unwanted=[word for word in fail_on if word in happened],
            **more,
        )

    def keep_run(self, summary: ExitSummary, started_at: str) -> None:
        """Add how this run over the sweep went to `runs.json`; a full disk is no reason to fail now."""
        with suppress(OSError):
            add_run(self.paths, summary, started_at)

    def _keep(self, record: Record, *, sync: bool) -> None:
        self.records[record.place] = record
        path = self.paths.cell(record.place).record
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, record_to_dict(record), sync=sync)


def broken(kind: str, what: str, error: BaseException) -> Outcome:
    """The verdict on a cell that the runner itself could not handle."""
    reason = f"{what}: {type(error).__name__}: {first_line(str(error)) or 'no message'}"
    return Outcome(status="failed", reason_code=f"failed.{kind}", reason=reason)
