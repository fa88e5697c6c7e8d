"""What a policy is asked: it learns from verdicts, and decides which cells are not started, ended or run again."""

from benchrunner.core.record import Record
from benchrunner.outcome.outcome import Outcome
from benchrunner.plan.plan import PlannedCell


class Policy:
    """Hooks named for moments of the loop; the defaults do nothing."""

    code: str | None = None
    """The reason code of its refusals that say nothing about the cell itself."""
    decides_searches = False
    """Whether it is asked about searches, too. What keeps a search from going on is asked of its probes."""
    stopped_by: str | None = None
    """What the sweep was stopped early by, once this policy has done so."""

    def learn(self, planned: PlannedCell, record: Record) -> None:
        """A cell has got its verdict."""

    def refused(self, planned: PlannedCell, outcome: Outcome) -> None:
        """A waiting cell is not started, for a reason that says nothing about the cell itself."""

    def refusal(self, planned: PlannedCell, now_s: float) -> Outcome | None:
        """The verdict on a waiting cell that is not to be started, now nor later; None: it may run."""
        return None

    def ending(self, now_s: float) -> str | None:
        """The kind of `Stop` for the cells at work, when none may go on."""
        return None

    def rerun(self, planned: PlannedCell, outcome: Outcome) -> str | None:
        """Why a cell whose attempt has ended so is run again, in words; None: the verdict is final.

        Asked once an attempt, and done as it says.
        """
        return None

    def note(self, num_refused: int, *, at_end: bool) -> str | None:
        """What a reader must know about the cells that were refused with `code`, so far or `at_end`; said once."""
        return None
