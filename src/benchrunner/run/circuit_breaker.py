"""The circuit breaker: when different cells fail alike, the rest would too, and none is started any more."""

import re

from benchrunner.core.record import Record
from benchrunner.outcome.judge import Outcome
from benchrunner.plan.plan import PlannedCell
from benchrunner.run.policy import Policy

FAILURE_STATUSES = ("failed", "timeout")
"""Statuses that say that something is broken; the others are findings about a cell."""

_VARYING = re.compile(r"0x[0-9a-f]+|\d[\d.,]*")


def signature(record: Record) -> str | None:
    """What makes two failures the same: the code and, of a failure, the sentence without its numbers; else None."""
    if record.status not in FAILURE_STATUSES:
        return None
    said = _VARYING.sub("#", record.reason or "") if record.status == "failed" else ""
    return f"{record.reason_code} {said}".strip()


class CircuitBreaker(Policy):
    """Counts cells by the signature of their failure. `limit` None: it never opens."""

    code = "skipped.brake"

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._cells: dict[str, set[str]] = {}
        self._why: str | None = None
        self._is_noted = False

    def learn(self, planned: PlannedCell, record: Record) -> None:
        """Open once as many cells as the limit have failed alike; it stays open."""
        sign = signature(record)
        if sign is None or self._limit is None or self._why is not None:
            return
        cells = self._cells.setdefault(sign, set())
        cells.add(record.slug)
        if len(cells) >= self._limit:
            self.stopped_by = "brake"
            alike = f"the same failure in {len(cells)} cells (brake={self._limit})"
            self._why = f"{alike}: {record.reason_code}: {record.reason}"

    def refusal(self, planned: PlannedCell, now_s: float) -> Outcome | None:
        """Every cell, while it is open."""
        if self._why is None:
            return None
        return Outcome(status="skipped", reason_code=self.code, reason=f"not started, because {self._why}")

    def note(self, num_refused: int, *, at_end: bool) -> str | None:
        """At once: whoever watches wonders why nothing starts."""
        if self._is_noted or not num_refused:
            return None
        self._is_noted = True
        return f"stopped early, {num_refused} cells were not started: {self._why}"
