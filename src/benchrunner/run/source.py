"""Where a loop takes its cells from. Here: the plan is this loop's alone, and every cell that waits is to be had."""

from collections.abc import Sequence

from benchrunner.outcome.outcome import Outcome
from benchrunner.plan.plan import PlannedCell
from benchrunner.run.schedule import Queue
from benchrunner.run.utilization import Utilization


class Source:
    """Hooks of the loop, for a plan that several loops share; by default nobody else is there."""

    def is_open(self, planned: PlannedCell) -> bool:
        """Whether a waiting cell may be to be had: asked often."""
        return True

    def take(self, planned: PlannedCell) -> bool:
        """Whether a waiting cell is this loop's, to be run or decided upon."""
        return True

    def conclude(self, planned: PlannedCell) -> None:
        """A cell that was taken has its verdict."""

    grace_s = 0.0
    """So long after a failure a signal may come that explains it."""

    def is_given_back(self, outcome: Outcome, *, is_stopped: bool) -> bool:
        """Whether an attempt that ended so is no verdict here, and the cell is another loop's to run.

        `is_stopped`: this loop was told to end.
        """
        return False

    def attend(self, now_s: float, queue: Queue, running: Sequence[str]) -> None:
        """A turn of the loop begins; `running` are places."""

    def require_membership(self) -> None:
        """Before a verdict is written."""

    def has_more(self, queue: Queue) -> bool:
        """Whether waiting is worth while: a cell may become this loop's."""
        return len(queue) > 0

    def leave(self, utilization: Utilization, notes: Sequence[str]) -> None:
        """The loop has ended in order."""
