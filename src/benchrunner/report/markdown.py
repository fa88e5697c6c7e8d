"""Tables → Markdown. Text from logs can break none of it."""

import re

import pandas as pd

from benchrunner.core.text import single_line
from benchrunner.report import formatting
from benchrunner.report.compatibility import Matrix
from benchrunner.report.content import Block, Tables
from benchrunner.report.expectations import expectations_table

_MARKDOWN = re.compile(r"([\\`*\[\]|~$])|(?<!\w)(_)|(_)(?!\w)")
"""What Markdown would read as markup; an underscore inside a word is none."""


_HTML = str.maketrans({"<": "&lt;", ">": "&gt;", "&": "&amp;"})


def escape_markdown(text: str) -> str:
    """`text` as it stands, in any place of a Markdown table."""
    escaped = _MARKDOWN.sub(lambda hit: "\\" + hit[0], single_line(text).translate(_HTML))
    return re.sub(r"(https?)(://)", r"\1&#58;//", escaped) or formatting.UNKNOWN


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
    parts = [f"# Results: {escape_markdown(tables.title)}", *_banner(tables), *map(escape_markdown, tables.summary)]
    parts += [escape_markdown(line) for line in dict.fromkeys(table.above for table in tables.published)]
    for table in tables.published:
        parts += _section(escape_markdown(table.title), table.frame)
        parts += ["\n".join(f"- {escape_markdown(note)}" for note in table.notes)] if table.notes else []
    parts += _section("Expected", expectations_table(tables.expectations))
    parts += _section("Measured", formatting.measured_table(tables.results))
    parts += _section("Not measured", formatting.unmeasured_table(tables.results))
    parts += _notes(tables)
    return "\n\n".join([*parts, *map(_environment, tables.environments)]) + "\n"


def compatibility_markdown(tables: Tables) -> str:
    """compatibility.md."""
    parts = [f"# Compatibility: {escape_markdown(tables.title)}", *_banner(tables)]
    parts += [*map(escape_markdown, tables.summary), LEGEND]
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


def _banner(tables: Tables) -> list[str]:
    return [f"**{escape_markdown(text)}**" for text in tables.banner]


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
