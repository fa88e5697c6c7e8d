"""The systemic brake: when different cells die of the same thing, the rest would too."""

import re

from benchrunner.core.record import Record

FAILURE_STATUSES = ("failed", "timeout")
"""Statuses that say that something is broken; the others are findings about a cell."""

_VARYING = re.compile(r"0x[0-9a-f]+|\d[\d.,]*")


def signature(record: Record) -> str | None:
    """What makes two failures the same: the code and, of a failure, the sentence without its numbers; else None."""
    if record.status not in FAILURE_STATUSES:
        return None
    said = _VARYING.sub("#", record.reason or "") if record.status == "failed" else ""
    return f"{record.reason_code} {said}".strip()


class CircuitBreaker:
    """Counts cells by the signature of their failure. `limit` None: never pulled."""

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._cells: dict[str, set[str]] = {}

    def see(self, record: Record) -> str | None:
        """Take note of a verdict; why the sweep is to stop, once as many cells as the limit have failed alike."""
        sign = signature(record)
        if sign is None or self._limit is None:
            return None
        cells = self._cells.setdefault(sign, set())
        cells.add(record.slug)
        if len(cells) < self._limit:
            return None
        return f"the same failure in {len(cells)} cells (brake={self._limit}): {record.reason_code}: {record.reason}"
