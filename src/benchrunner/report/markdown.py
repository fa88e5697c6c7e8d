"""Tables → Markdown. Text from logs can break none of it."""

import re

import pandas as pd

from benchrunner.core.text import escape_markdown as escape_text
from benchrunner.report import formatting
from benchrunner.report.compatibility import Matrix
from benchrunner.report.content import Block, Tables


def escape_markdown(value: str) -> str:
    """`value` as it stands, in any place of a Markdown table; never a blank."""
    return escape_text(value) or formatting.UNKNOWN


def to_markdown(frame: pd.DataFrame, *, index: str | None = None) -> str:
    """A Markdown table; `index` is the heading of the index column, None: no such column."""
    shown = frame if index is None else frame.rename_axis(index).reset_index()
    lines = [shown.columns.tolist(), *shown.to_numpy().tolist()]
    cells = [[escape_markdown(str(value)) for value in line] for line in lines]
    widths = [max(3, *(len(line[column]) for line in cells)) for column in range(len(shown.columns))]
    right = [index is None and is_numeric(shown.iloc[:, column]) for column in range(len(widths))]
    rule = [("-" * (width - 1) + ":") if numeric else "-" * width for width, numeric in zip(widths, right, strict=True)]
    padded = [
        [
            text.rjust(width) if numeric else text.ljust(width)
            for text, width, numeric in zip(line, widths, right, strict=True)
        ]
        for line in cells
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in [padded[0], rule, *padded[1:]])


def is_numeric(column: pd.Series) -> bool:
    """Whether every field of a column of texts reads as a number."""
    texts = [str(value) for value in column]
    return bool(texts) and all(re.fullmatch(r"[\d,.–-]+(e[+-]\d+)?", text) for text in texts)


def results_markdown(tables: Tables) -> str:
    """results.md."""
    parts = [f"# Results: {escape_markdown(tables.title)}", *map(escape_markdown, tables.summary)]
    parts += _section("Measured", formatting.measured_table(tables.results))
    parts += _section("Not measured", formatting.unmeasured_table(tables.results))
    parts += _notes(tables)
    return "\n\n".join([*parts, *map(_environment, tables.environments)]) + "\n"


def compatibility_markdown(tables: Tables) -> str:
    """compatibility.md."""
    parts = [f"# Compatibility: {escape_markdown(tables.title)}", LEGEND]
    for matrix in tables.matrices:
        parts += _matrix(matrix)
    parts += _section("Reasons", formatting.as_text(tables.reasons))
    parts += _notes(tables)
    return "\n\n".join([*parts, *map(_environment, tables.environments)]) + "\n"


LEGEND = (
    "From records. ✓ k/n: k of n cells ran and are valid. ✗ rule: ruled out before launch. ✗ refused: a library said no"
    " at run time. OOM, timeout, failed, invalid: what it says. – not run: planned, without a verdict."
    " Cells that disagree are counted one by one. Behind a semicolon: what parity cells say, which compare the same"
    " combination at small scale with fp32 (right, wrong, or unjudged where no tolerance was measured); running is not"
    " computing the right thing."
)


def _section(title: str, frame: pd.DataFrame) -> list[str]:
    return [f"## {title}", to_markdown(frame)] if len(frame) else []


def _matrix(matrix: Matrix) -> list[str]:
    return [f"## {escape_markdown(matrix.title)}", to_markdown(matrix.frame, index=matrix.corner)]


def _notes(tables: Tables) -> list[str]:
    lines = "\n".join(f"- {escape_markdown(note)}" for note in tables.notes)
    return ["## Notes", lines] if lines else []


def _environment(block: Block) -> str:
    lines = "\n".join(f"- {label}: {escape_markdown(text)}" for label, text in block.lines)
    return f"## Setup: {escape_markdown(block.title)}\n\n{lines}"
