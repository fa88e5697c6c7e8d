"""runs.json: how each run over a sweep went."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchrunner.core.paths import SweepPaths

BAD_STATUSES = ("failed", "timeout", "invalid")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitSummary:
    """How a sweep ended."""

    counts: Mapping[str, int]
    """Status → cells; one without a record counts as skipped."""
    num_attempted: int
    """Cells that were launched, now or before."""
    interrupted_by: int | None = None
    """The signal."""
    busy_share: float | None = None
    """Device seconds at work ÷ those from the first launch until no cell waited; null when none ever did."""
    concurrency: float | None = None
    """Cells at work at once, on average."""
    stopped_by: str | None = None
    """What ended the sweep early: brake | disk; null: nothing."""
    notes: Sequence[str] = ()
    """What a reader must know beside the cells, e.g. that a device was given up."""

    @property
    def exit_code(self) -> int:
        """0 as expected, 2 some cell is bad, 4 nothing was attempted, 128 + signal when interrupted."""
        if self.interrupted_by is not None:
            return 128 + self.interrupted_by
        if self.stopped_by is not None or any(self.counts.get(status) for status in BAD_STATUSES):
            return 2
        return 0 if self.num_attempted else 4


def read_runs(paths: SweepPaths) -> tuple[list[dict[str, Any]], str | None]:
    """How each run over the sweep went, oldest first; and what is wrong with the file, if anything."""
    try:
        runs = json.loads(paths.runs.read_text(encoding="utf-8"))["runs"]
        return [run for run in runs if isinstance(run, dict)], None
    except FileNotFoundError:
        return [], None
    except (OSError, ValueError, KeyError, TypeError) as error:
        return [], f"{paths.runs.name} is damaged and was skipped: {type(error).__name__}: {error}"


def usage_line(busy_share: float | None, concurrency: float | None) -> str | None:
    """`devices at work 97 % of the time while cells waited; 3.8 cells at once on average`; null when none waited."""
    if busy_share is None:
        return None
    at_once = "" if concurrency is None else f"; {concurrency:.1f} cells at once on average"
    return f"devices at work {busy_share:.1%} of the time while cells waited{at_once}"
