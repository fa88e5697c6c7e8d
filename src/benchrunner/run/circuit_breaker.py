"""The circuit breaker: when different cells fail alike, those like them would too, and none of them is started."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from benchrunner.core.record import Record
from benchrunner.outcome.outcome import Outcome
from benchrunner.plan.plan import PlannedCell
from benchrunner.run.order import Items, items_of
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


@dataclass(slots=True)
class Scope:
    """The values that cells which failed alike have in common: no other cell that has them all is started."""

    values: Items
    why: str
    is_noted: bool = False
    has_refused: bool = False


@dataclass(slots=True)
class Failures:
    """What is known of one signature."""

    events: list[tuple[str | None, Items]] = field(default_factory=list)
    """Oldest first, from the first cell that failed so: its slug and values; no slug where a cell did not fail."""
    scopes: list[Scope] = field(default_factory=list)

    def streak(self) -> tuple[set[str], Items]:
        """The cells that failed like the newest one, and what they have in common.

        It goes back to the last cell that has all of that and did not fail. A failure on the way that has so little in
        common with the others that healthy cells have it too is another matter.
        """
        slugs: set[str] = set()
        shared: Items = self.events[-1][1]
        healthy: list[Items] = []
        for slug, values in reversed(self.events):
            if slug is None and shared <= values:
                break
            if slug is None:
                healthy.append(values)
            elif not any(shared & values <= one for one in healthy):
                shared &= values
                slugs.add(slug)
        return slugs, shared

    def add_healthy(self, values: Items) -> None:
        """A cell with these values did not fail: what it has in common with those that did is not the cause."""
        self.scopes = [scope for scope in self.scopes if not scope.values <= values]
        self.events.append((None, values))


class CircuitBreaker(Policy):
    """Counts cells by the signature of their failure. `limit` None: it never opens.

    It opens for the cells that have everything that the failed ones have in common, and closes again when one of those
    does not fail.
    """

    code = "skipped.brake"

    def __init__(self, limit: int | None, cells: Iterable[PlannedCell] = ()) -> None:
        self._limit = limit
        everything = [items_of(planned.cell) for planned in cells]
        self._in_all: Items = frozenset.intersection(*everything) if everything else frozenset()
        """What cannot tell cells apart, and so is not mentioned."""
        self._failures: dict[str, Failures] = {}
        self._items: dict[str, Items] = {}

    def learn(self, planned: PlannedCell, record: Record) -> None:
        """Open for the cells like those that fail alike, once they are as many as the limit."""
        sign, values = signature(record), self._items_of(planned)
        if self._limit is None:
            return
        if sign is not None:
            failures = self._failures.setdefault(sign, Failures())
            failures.events.append((record.slug, values))
            self._open(failures, record, self._limit)
        elif record.attempt > 0:
            for failures in self._failures.values():
                failures.add_healthy(values)

    def refusal(self, planned: PlannedCell, now_s: float) -> Outcome | None:
        """A cell with everything that cells which failed alike have in common."""
        values = self._items_of(planned) if self._failures else frozenset()
        for scope in self._scopes():
            if scope.values <= values:
                self.stopped_by = "brake"
                scope.has_refused = True
                return Outcome(status="skipped", reason_code=self.code, reason=f"not started, because {scope.why}")
        return None

    def note(self, num_refused: int, *, at_end: bool) -> str | None:
        """At once: whoever watches wonders why nothing starts."""
        new = next((scope for scope in self._scopes() if scope.has_refused and not scope.is_noted), None)
        if new is None or not num_refused:
            return None
        new.is_noted = True
        return f"stopped early, {num_refused} cells were not started: {new.why}"

    def _scopes(self) -> list[Scope]:
        return [scope for failures in self._failures.values() for scope in failures.scopes]

    def _open(self, failures: Failures, record: Record, limit: int) -> None:
        """For what the last failures have in common, if they are so many and it is not open for that already."""
        slugs, shared = failures.streak()
        # One cell has nothing in common with others: who allows no more failures than that one stops the sweep.
        shared = shared if len(slugs) > 1 else self._in_all
        if len(slugs) < limit or any(scope.values <= shared for scope in failures.scopes):
            return
        telling = ", ".join(f"{name}={value}" for name, value in sorted(shared - self._in_all, key=str))
        alike = f"the same failure in {len(slugs)} cells{' with ' * bool(telling)}{telling} (brake={limit})"
        failures.scopes.append(Scope(shared, f"{alike}: {record.reason_code}: {record.reason}"))

    def _items_of(self, planned: PlannedCell) -> Items:
        """Asked for every waiting cell after every verdict."""
        slug = planned.cell.slug
        if slug not in self._items:
            self._items[slug] = items_of(planned.cell)
        return self._items[slug]
