"""A failure of infrastructure is no verdict on a cell: it is tried again, so often as the sweep allows."""

from collections import Counter

from benchrunner.outcome.outcome import Outcome
from benchrunner.plan.plan import PlannedCell
from benchrunner.run.policy import Policy

RETRIED_CODE = "failed.infrastructure"


class Retries(Policy):
    """Counts the cells that were tried again in this run."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._num_done: Counter[str] = Counter()

    def rerun(self, planned: PlannedCell, outcome: Outcome) -> str | None:
        """See Policy."""
        place = planned.place
        if outcome.reason_code != RETRIED_CODE or self._num_done[place] >= self._most:
            return None
        self._num_done[place] += 1
        return f"{outcome.reason}; trying again ({self._num_done[place]} of {self._most})"
