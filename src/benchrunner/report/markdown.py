"""Tables → Markdown. Text from logs can break none of it."""

import re
from collections.abc import Collection

import pandas as pd

from benchrunner.core.text import escape_markdown as escape_text
from benchrunner.report import formatting
from benchrunner.report.compatibility import Matrix
from benchrunner.report.content import Block, Tables
from benchrunner.report.expectations import expectations_table


def escape_markdown(value: str) -> str:
    """`value` as it stands, in any place of a Markdown table; never a blank."""
    return escape_text(value) or formatting.UNKNOWN


def to_markdown(
    frame: pd.DataFrame, *, index: str | None = None, bold: Collection[tuple[int, str]] = frozenset()
) -> str:
    """A Markdown table; `index` is the heading of the index column (None: no such column), `bold` (line, heading)s."""
    shown = frame if index is None else frame.rename_axis(index).reset_index()
    lines = [shown.columns.tolist(), *shown.to_numpy().tolist()]
    cells = [[escape_markdown(str(value)) for value in line] for line in lines]
    for line, heading in bold:
        place = lines[0].index(heading)
        cells[line + 1][place] = f"**{cells[line + 1][place]}**"
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
    ordered = by_group(tables.results)
    measured, best = formatting.measured_table(ordered), best_of_groups(ordered)
    parts += _section("Found by search", formatting.searches_table(tables.results))
    parts += ["## Measured", to_markdown(measured, bold=best)] if len(measured) else []
    parts += _section("Predicted", formatting.predicted_table(tables.results))
    parts += _section("Not measured", formatting.unmeasured_table(tables.results))
    parts += _notes(tables)
    return "\n\n".join([*parts, *map(_environment, tables.environments)]) + "\n"


SPEED = "tokens_per_second_per_device"
GROUP = ["model_label", "workload"]
"""What one number may be compared within."""


def by_group(results: pd.DataFrame) -> pd.DataFrame:
    """The rows by model and workload, in the order in which these appear, and of each the fastest first."""
    place = results.groupby(GROUP, sort=False).ngroup()
    return (
        results.assign(_place=place, _speed=-results[SPEED])
        .sort_values(["_place", "_speed"], kind="stable")
        .drop(columns=["_place", "_speed"])
    )


def best_of_groups(ordered: pd.DataFrame) -> list[tuple[int, str]]:
    """(line, heading) of the fastest cell of each group of several, among those that are ok."""
    ok = formatting.measured_rows(ordered).reset_index(drop=True)
    groups = [part for _, part in ok[ok[SPEED].notna()].groupby(GROUP, sort=False) if len(part) > 1]
    heading = formatting.MEASURED[SPEED][0]
    return [(part.index.tolist()[int(part[SPEED].astype(float).to_numpy().argmax())], heading) for part in groups]


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
