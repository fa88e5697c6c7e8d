"""What a running sweep says on stderr: a line a finished cell, and on a terminal a live line below them."""

from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.status import Status
from rich.text import Text

from benchrunner.core.record import Record
from benchrunner.plan.plan import PlannedCell
from benchrunner.run import progress


class Clock(Protocol):
    """The time as the loop sees it."""

    def now(self) -> float:
        """Seconds, monotonic."""

    def sleep(self, seconds: float) -> None:
        """Let time pass."""


class Teller:
    """Progress on stderr."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._console = Console(stderr=True)
        self._status = Status("", console=self._console) if self._console.is_terminal else None
        self._started_s = clock.now()
        self._num_done, self._num_cells = 0, 0

    def telling(self, num_cells: int) -> Self:
        """About to run so many cells."""
        self._num_done, self._num_cells, self._started_s = 0, num_cells, self._clock.now()
        return self

    def __enter__(self) -> Self:
        """Begin the live line."""
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """End the live line."""
        if self._status is not None:
            self._status.stop()

    def tell(self, record: Record) -> None:
        """A cell has its record."""
        self._num_done += 1
        total = max(self._num_cells, self._num_done)
        line = progress.finished_line(record, self._num_done, total)
        if self._status is None:
            line = f"{line}  {progress.pace(self._num_done, total, self._elapsed_s())}"
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def say(self, text: str) -> None:
        """Something that a reader must know beside the cells."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def show(self, running: list[PlannedCell]) -> None:
        """What is going on now."""
        if self._status is not None:
            slugs = [planned.cell.slug for planned in running]
            pace = progress.pace(self._num_done, self._num_cells, self._elapsed_s())
            self._status.update(Text(f"{pace}; running {progress.shorten(slugs)}"))

    def _elapsed_s(self) -> float:
        return self._clock.now() - self._started_s
