"""`--budget 45m`: which cells do not fit what is left of the time."""

import math
import re
import statistics

from benchrunner.core.errors import UsageError
from benchrunner.core.record import Record
from benchrunner.outcome.outcome import Outcome
from benchrunner.plan.costs import expected_cell_s
from benchrunner.plan.plan import PlannedCell
from benchrunner.run.policy import Policy

GRACE_SHARE, LEAST_GRACE_S = 0.1, 60.0
"""A cell at work may run past the end by this share of the budget, or so long."""

NUM_CELLS_TO_LEARN = 2
"""Cells after which what they took corrects the expectation. As a refusal is final, more would come too late."""
WHOLE = ("ok", "invalid")
"""A cell that fails its checks has come as far as one that passes them."""
LEAST_FACTOR, MOST_FACTOR = 0.1, 10.0
"""Between which it is corrected: no sweep is as strange as a few odd cells make it look."""

UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0}


def parse_duration(text: str, flag: str = "--budget") -> float:
    """`45m`, `1h30m` or `90s` as seconds; `flag` is named where it is something else.

    Raises:
        UsageError: anything else, a number without its unit, or nothing.
    """
    number = text.strip()
    if re.fullmatch(r"[\d.]+", number):
        raise UsageError(f"{flag}: {number!r} has no unit; write {number}m, {number}s or {number}h")
    found = re.fullmatch(r"(?:(?P<h>[\d.]+)h)?(?:(?P<m>[\d.]+)m)?(?:(?P<s>[\d.]+)s)?", text.strip())
    try:
        total_s = sum(float(value) * UNITS[unit] for unit, value in found.groupdict().items() if value) if found else 0
    except ValueError:
        total_s = 0
    if total_s <= 0:
        raise UsageError(f"{flag}: {text!r} is no duration such as 45m, 1h30m or 90s")
    return total_s


class Budget(Policy):
    """What is left of the time, and what cells are expected to take by the experience so far."""

    code = "skipped.budget"

    def __init__(self, total_s: float, now_s: float, device_type: str) -> None:
        self.total_s = total_s
        self._started_s = now_s
        self._device_type = device_type
        self._uncorrected_s: dict[str, float] = {}
        self._factors: list[float] = []
        self._factor = 1.0

    def expected_s(self, planned: PlannedCell) -> float:
        """Seconds from launch to verdict: by the model of costs, times the median of actual ÷ expected so far."""
        return self._expected_s(planned) * self._factor

    def _expected_s(self, planned: PlannedCell) -> float:
        """Asked for every waiting cell after every verdict."""
        slug = planned.cell.slug
        if slug not in self._uncorrected_s:
            self._uncorrected_s[slug] = expected_cell_s(planned, self._device_type)
        return self._uncorrected_s[slug]

    def left_s(self, now_s: float) -> float:
        """Seconds until the end."""
        return self._started_s + self.total_s - now_s

    def learn(self, planned: PlannedCell, record: Record) -> None:
        """Compare what a cell took to its end with what it was expected to take."""
        if record.status not in WHOLE or record.wall_s is None:
            return
        self._factors.append(record.wall_s / self._expected_s(planned))
        if len(self._factors) >= NUM_CELLS_TO_LEARN:
            self._factor = min(max(statistics.median(self._factors), LEAST_FACTOR), MOST_FACTOR)

    def refusal(self, planned: PlannedCell, now_s: float) -> Outcome | None:
        """A cell that is expected not to end within what is left; that only becomes less."""
        expected_s, left_s = self.expected_s(planned), max(self.left_s(now_s), 0.0)
        if expected_s <= left_s:
            return None
        left = f"{math.floor(left_s)} s of the budget of {self.total_s:g} s are left"
        reason = f"not started: it is expected to take {math.ceil(expected_s)} s, and {left}"
        return Outcome(status="skipped", reason_code=self.code, reason=reason)

    def ending(self, now_s: float) -> str | None:
        """When the budget is over, and so is the grace."""
        return "budget" if -self.left_s(now_s) > max(GRACE_SHARE * self.total_s, LEAST_GRACE_S) else None

    def note(self, num_refused: int, *, at_end: bool) -> str | None:
        """At the end: cells drop out one by one."""
        if not at_end or not num_refused:
            return None
        which = (
            "1 cell was not started, because it does"
            if num_refused == 1
            else f"{num_refused} cells were not started, because they do"
        )
        return f"{which} not fit the budget"
