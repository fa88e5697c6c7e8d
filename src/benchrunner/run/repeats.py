"""Repeats of a cell measure its spread: one that is not ok in its first process has none, and is not repeated."""

from collections.abc import Iterable

from benchrunner.core.record import Record
from benchrunner.outcome.outcome import Outcome
from benchrunner.plan.plan import PlannedCell
from benchrunner.run.policy import Policy


class Repeats(Policy):
    """Which cells are not repeated."""

    code = "skipped.not_repeated"

    def __init__(self, records: Iterable[Record]) -> None:
        self._not_ok = {record.slug for record in records if record.repeat == 1 and record.status != "ok"}

    def learn(self, planned: PlannedCell, record: Record) -> None:
        """See Policy."""
        if record.repeat == 1:
            (self._not_ok.discard if record.status == "ok" else self._not_ok.add)(record.slug)

    def refusal(self, planned: PlannedCell, now_s: float) -> Outcome | None:
        """A further process of a cell whose first one was not ok."""
        if planned.repeat == 1 or planned.cell.slug not in self._not_ok:
            return None
        return Outcome(status="skipped", reason_code=self.code, reason="its first process was not ok")
