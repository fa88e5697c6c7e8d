"""Tables and sentences as lines of a terminal's width: aligned where they fit, with fewer columns, else stacked.

Reasons are wrapped under their row and never cut.
"""

import re
import textwrap
from collections.abc import Iterable, Sequence

import pandas as pd

from benchrunner.core.text import single_line
from benchrunner.report import formatting
from benchrunner.report.compatibility import Matrix
from benchrunner.report.conclusions import unmeasured

INDENT = "    "

LEAST_WANTED = (
    "p90 ms", "reserved GiB", "TFLOP/s/device", "alloc retries", "J/step", "predicted step %", "predicted peak %",
    "limited by", "checks", "predicted by", "compile s", "fit", "bandwidth %", "step ms",
)  # fmt: skip
"""Columns that a narrow terminal goes without, in this order."""


def narrowed(frame: pd.DataFrame, width: int) -> tuple[pd.DataFrame, list[str]]:
    """The table without what a terminal of that width has no place for, and what that is; all where that is no help.

    A column that says `none` or 0 of every row goes first.
    """
    empty = [str(name) for name in frame.columns if name in EMPTY and set(frame[name]) <= {"none", "0"}]
    without: list[str] = []
    for name in ["", *empty, *(name for name in LEAST_WANTED if name in frame.columns and name not in empty)]:
        without += [name] if name else []
        kept = frame.drop(columns=without)
        if side_by_side(kept, width) is not None:
            return kept, without
    return frame, []


EMPTY = ("flags", "alloc retries", "settings")
"""Columns that say something where they say more than `none` and 0."""


def left_out(names: Sequence[str], width: int) -> list[str]:
    """What a reader of a narrowed table must know."""
    return paragraph(f"Left out at {width} columns: {', '.join(names)}.", width) if names else []


def aligned(frame: pd.DataFrame, width: int) -> list[str]:
    """Columns side by side, headings in several lines where `width` asks for it; else a `heading value` list a row."""
    lines = side_by_side(frame, width)
    heads = [str(name) for name in frame.columns]
    return lines if lines is not None else [line for row in _texts(frame) for line in _stacked(heads, row, width)]


def side_by_side(frame: pd.DataFrame, width: int) -> list[str] | None:
    """Columns beside each other; None where they are wider than that."""
    if not len(frame):
        return []
    heads, rows = [str(name) for name in frame.columns], _texts(frame)
    cells = [max(len(row[column]) for row in rows) for column in range(len(heads))]
    for headings in (
        [[head] for head in heads],
        [_broken(head, size) for head, size in zip(heads, cells, strict=True)],
    ):
        widths = [max(size, *map(len, heading)) for heading, size in zip(headings, cells, strict=True)]
        if sum(widths) + 2 * (len(widths) - 1) <= width:
            return [_line(texts, widths) for texts in (*_heading_lines(headings), *rows)]
    return None


def numbers_by_label(frame: pd.DataFrame, num_labels: int, width: int) -> list[str]:
    """A table of numbers: side by side without what is wanted least, else aligned below each row's labels."""
    shown, missing = narrowed(frame, width)
    if side_by_side(shown, width) is not None:
        return [*aligned(shown, width), *left_out(missing, width)]
    lines = below_labels(frame.assign(more=""), num_labels, width)
    return aligned(frame, width) if lines is None else lines


def below_labels(frame: pd.DataFrame, num_labels: int, width: int) -> list[str] | None:
    """Each row's labels, below them its numbers and the last column's text; None where numbers find no place."""
    below, frame = frame.iloc[:, -1], frame.iloc[:, :-1]
    numbers, missing = narrowed(frame.iloc[:, num_labels:], width - len(INDENT))
    lines = side_by_side(numbers, width - len(INDENT))
    if not lines or not num_labels:
        return None
    head, body = lines[: -len(frame)], lines[-len(frame) :]
    named = zip(formatting.row_labels(frame.iloc[:, :num_labels]), body, below, strict=True)
    rows = [
        line
        for label, text, more in named
        for line in (*paragraph(label, width), INDENT + text, *wrapped(single_line(more), width))
    ]
    return [*(INDENT + line for line in head), *rows, *left_out(missing, width)]


def in_pieces(frame: pd.DataFrame, num_labels: int, width: int, group: int = 3) -> list[str]:
    """A table that is too wide in pieces below one another, each with the labels; groups of columns stay together."""
    starts = range(num_labels, len(frame.columns), group)
    pieces: list[list[int]] = []
    for columns in ([*range(start, start + group)] for start in starts):
        if not pieces or side_by_side(frame.iloc[:, [*range(num_labels), *pieces[-1], *columns]], width) is None:
            pieces.append([])
        pieces[-1] += columns
    blocks = [aligned(frame.iloc[:, [*range(num_labels), *piece]], width) for piece in pieces]
    return [line for number, block in enumerate(blocks) for line in ([""] if number else []) + block]


def _broken(head: str, size: int) -> list[str]:
    """A heading in lines no longer than `size` or its longest part; breaks are at spaces and before slashes."""
    parts = re.findall(r" ?/?[^ /]+", head)
    limit = max(size, *(len(part.strip()) for part in parts))
    lines = [""]
    for part in parts:
        if len((lines[-1] + part).strip()) <= limit:
            lines[-1] = (lines[-1] + part).strip()
        else:
            lines.append(part.strip())
    return lines


def _heading_lines(headings: Sequence[Sequence[str]]) -> list[list[str]]:
    """Headings of several lines as lines of the table, the last ones side by side."""
    height = max(map(len, headings))
    padded = [[*[""] * (height - len(heading)), *heading] for heading in headings]
    return [list(line) for line in zip(*padded, strict=True)]


def _line(texts: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(text.ljust(size) for text, size in zip(texts, widths, strict=True)).rstrip()


def with_reasons(frame: pd.DataFrame, width: int) -> list[str]:
    """The table without its last column, whose text stands wrapped under each row."""
    if not len(frame):
        return []
    names = [str(name) for name in frame.columns[:-1]]
    ordered = sorted(names, key=lambda name: name not in ("status", "verdict", "works"))
    head, *rows = _one_line_each(frame[ordered], width)
    lines = head.split("\n") if head else []
    for row, reason in zip(rows, frame.iloc[:, -1], strict=True):
        lines += [*row.split("\n"), *wrapped(single_line(str(reason)), width)]
    return lines


def unmeasured_lines(results: pd.DataFrame, width: int) -> list[str]:
    """Why cells are no result: a reason code, its cells, and each sentence about them once."""
    lines = []
    for group in unmeasured(results):
        count = "1 cell" if group.num_cells == 1 else f"{group.num_cells} cells"
        lines.append(f"{group.status}  {single_line(group.code)}, {count}")
        for reason, cells in group.cells.items():
            lines += textwrap.wrap(single_line("; ".join(cells)), width, initial_indent="  ", subsequent_indent="  ")
            lines += wrapped(single_line(reason), width)
    return lines


def _one_line_each(frame: pd.DataFrame, width: int) -> list[str]:
    """A heading (empty when stacked) and one string a row, which may hold several lines."""
    lines = side_by_side(frame, width)
    if lines is not None:
        height = len(lines) - len(frame)
        return ["\n".join(lines[:height]), *lines[height:]]
    heads = [str(name) for name in frame.columns]
    return ["", *("\n".join(_stacked(heads, row, width)) for row in _texts(frame))]


def _stacked(heads: Sequence[str], row: Sequence[str], width: int) -> list[str]:
    """One row as `first; heading value; heading value; …`, wrapped and indented."""
    known = [(head, text) for head, text in zip(heads, row, strict=True) if text not in ("", formatting.UNKNOWN)]
    text = "; ".join([row[0], *(f"{head} {value}" for head, value in known if head != heads[0])])
    return textwrap.wrap(text, width, subsequent_indent=INDENT, break_on_hyphens=False)


def wrapped(text: str, width: int) -> list[str]:
    """Lines of a sentence that belongs to the line before."""
    return textwrap.wrap(text, width, initial_indent=INDENT, subsequent_indent=INDENT, break_on_hyphens=False)


def matrix_lines(matrix: Matrix, width: int) -> list[str]:
    """A matrix as an aligned or stacked table."""
    return aligned(matrix.frame.rename_axis(matrix.corner).reset_index(), width)


def paragraph(text: str, width: int) -> list[str]:
    """Lines of a sentence; a path in it stays in one piece, so that it can be copied."""
    return textwrap.wrap(single_line(text), width, break_on_hyphens=False, break_long_words=False)


def _texts(frame: pd.DataFrame) -> list[list[str]]:
    return [[single_line(str(value)) for value in row] for row in frame.to_numpy().tolist()]


def pairs(facts: Iterable[tuple[str, str]], width: int) -> list[str]:
    """`label: text` of each, wrapped."""
    return [
        line for label, text in facts for line in textwrap.wrap(f"{label}: {text}", width, subsequent_indent=INDENT)
    ]
