"""What a running sweep reports on stderr: a line a finished cell, notes, and on a terminal a live line below them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.status import Status
from rich.text import Text

from benchrunner.core.paths import SweepPaths
from benchrunner.core.record import Record
from benchrunner.core.text import visible
from benchrunner.run.clock import Clock

STATUS_WIDTH = 11

SILENT = "no sign of life"
"""What is said of a cell that has made no progress for long."""


class Progress:
    """Reports how far a sweep has come. While entered there is a live line, if stderr is a terminal."""

    def __init__(self, clock: Clock) -> None:
        self.notes: list[str] = []
        """What a reader of the tables must know beside the cells, too."""
        self._clock = clock
        self._console = Console(stderr=True)
        self._status = Status("", console=self._console) if self._console.is_terminal else None
        self._started_s = clock.now()
        self._num_done, self._num_cells = 0, 0
        self._labels: Mapping[str, str] = {}
        self._root = Path()

    def begin(self, num_cells: int, labels: Mapping[str, str] | None = None, root: Path = Path()) -> Self:
        """So many cells are about to run; `labels`: slug → what a cell is called in a line; `root`: of the sweep."""
        self._labels, self._root = labels or {}, root
        self._num_done, self._num_cells, self._started_s = 0, num_cells, self._clock.now()
        return self

    def expect(self, num_cells: int, labels: Mapping[str, str]) -> None:
        """So many more than was known at the beginning; `labels` as in `begin`."""
        self._num_cells += num_cells
        self._labels = {**labels, **self._labels}

    def __enter__(self) -> Self:
        """Begin the live line."""
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """End the live line."""
        if self._status is not None:
            self._status.stop()

    def report_finished(self, record: Record) -> None:
        """A cell has its record."""
        self._num_done += 1
        total = max(self._num_cells, self._num_done)
        line = finished_line(record, self._num_done, total, self.label(record.slug))
        if self._status is None:
            line = f"{line}  {pace(self._num_done, total, self._elapsed_s())}"
        self.report(line)
        for more in where_to_look(record, self._root):
            self.report(more)

    def label(self, slug: str) -> str:
        """What a cell is called here; its slug where nobody named it."""
        return self._labels.get(slug, slug)

    def report_running(self, running: Sequence[str]) -> None:
        """What is going on now, on the live line: each running cell in a few plain words."""
        if self._status is not None:
            now = pace(self._num_done, self._num_cells, self._elapsed_s())
            self._status.update(Text(f"{now}; running {shorten(running)}"))

    def report(self, text: str) -> None:
        """A line for whoever watches."""
        self._console.print(visible(text), markup=False, highlight=False, soft_wrap=True)

    def note(self, text: str) -> None:
        """A line for whoever watches, and for whoever reads the tables."""
        self.notes.append(text)
        self.report(text)

    def _elapsed_s(self) -> float:
        return self._clock.now() - self._started_s


# --- the lines -----------------------------------------------------------------------------------------------------


def finished_line(record: Record, number: int, total: int, label: str | None = None) -> str:
    """`[ 3/20] ok  ddp · bf16  12.3 ms  4,567 tok/s/device  (5.2 s)`: status, cell, numbers or reason, duration."""
    wall = "" if record.wall_s is None else f"  ({format_duration(record.wall_s)})"
    fault = f"  [fault {record.fault}]" if record.fault else ""
    what = headline(record) if record.status == "ok" else f"{record.reason_code}: {record.reason}"
    process = "" if record.repeat == 1 else f" (process {record.repeat})"
    counter = f"[{number:>{len(str(total))}}/{total}]"
    return f"{counter} {record.status:<{STATUS_WIDTH}} {label or record.slug}{process}  {what}{wall}{fault}"


def where_to_look(record: Record, root: Path) -> list[str]:
    """After a cell that was run and is no result: its logs, and what repeats it."""
    if record.status in ("ok", "skipped") or not record.attempt:
        return []
    folder = SweepPaths(root).cell(record.place).attempt(record.attempt).root
    return [f"    log: {folder}/", f"    rerun: {record.command}"]


def headline(record: Record) -> str:
    """The numbers of an `ok` cell that fit on its line; of a search, what it found."""
    if record.reason is not None:
        return record.reason
    memory, mfu = record.metrics.get("peak_memory_allocated_bytes"), record.metrics.get("mfu")
    parts = [
        *_speed(record),
        *_parity_errors(record),
        None if mfu is None else f"MFU {mfu:.1%}",
        None if memory is None else f"{memory / 2**30:.2f} GiB",
        *record.flags,
    ]
    return "  ".join(part for part in parts if part) or "done"


def _speed(record: Record) -> list[str]:
    """What is decoded a second; a generation's step and rate are of prompt and answer together."""
    decoding = record.metrics.get("decode_tokens_per_second")
    if decoding is not None:
        return [f"decodes {decoding:,.4g} tok/s"]
    step, rate = record.metrics.get("step_time_median_s"), record.metrics.get("tokens_per_second_per_device")
    steps = [] if step is None else [f"{step * 1000:.4g} ms"]
    return steps if rate is None else [*steps, f"{rate:,.0f} tok/s/device"]


def _parity_errors(record: Record) -> list[str]:
    gradient, curve = record.metrics.get("parity_gradient_error"), record.metrics.get("parity_curve_error")
    if gradient is None or curve is None:
        return []
    limits = record.checks.get("parity", {"ok": None}).get("expected")
    allowed = "no tolerance measured yet" if limits is None else str(limits)
    return [f"gradient error {gradient:.2g}", f"curve error {curve:.2g} nats", f"({allowed})"]


def pace(num_done: int, num_cells: int, elapsed_s: float) -> str:
    """`3/20 done, 0:42 elapsed, about 4:00 left`."""
    left_s = estimate_left_s(num_done, num_cells, elapsed_s)
    left = "" if not left_s else f", about {format_duration(left_s)} left"
    return f"{num_done}/{num_cells} done, {format_duration(elapsed_s)} elapsed{left}"


def shorten(running: Sequence[str]) -> str:
    """The first two of what is running, those of which there is something to say before the others."""
    first = sorted(running, key=lambda described: SILENT not in described)
    return (", ".join(first[:2]) + (f" and {len(first) - 2} more" if len(first) > 2 else "")) or "nothing"


def estimate_left_s(done: int, total: int, elapsed_s: float) -> float | None:
    """Seconds left at the pace so far; None before the first cell has ended."""
    return None if done == 0 else elapsed_s / done * (total - done)


def format_clock(seconds: float) -> str:
    """`0:07`, `3:05`, `1:02:03`: time that is still passing."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def format_duration(seconds: float) -> str:
    """`4.2 s`, `3:05`, `1:02:03`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
