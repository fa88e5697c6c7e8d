"""What stands on `report.html`, as data: sentences, the table of all cells, the heat map, the pictures' points."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from benchrunner.core.text import single_line
from benchrunner.core.units import GIB
from benchrunner.report import charts, formatting
from benchrunner.report.charts import Point
from benchrunner.report.conclusions import PEAK, SPEED, best_cells, broke, group_names
from benchrunner.report.content import Tables
from benchrunner.report.row import NONE

GLYPHS = {
    "ok": "✓",
    "oom": "OOM",
    "unsupported": "✗",
    "invalid": "≠",
    "timeout": "…",
    "failed": "!",
    "skipped": "–",
}
"""Status → its sign; every colour of the page has one beside it."""

MOST_CELLS_IN_FULL = 1000
"""Of a larger sweep the table names reason codes alone, and the files are linked where a cell is opened."""

MOST_VALUES = 24
"""Rows or columns of a heat map."""

MOST_GROUPS = 3
"""Of which the first screen names the fastest cell."""

STEP = "step_time_median_s"
SHOWN = (
    STEP, SPEED, PEAK, "mfu", "decode_tokens_per_second", "time_to_first_token_s", "bandwidth_utilization",
    "num_alloc_retries", "compile_time_s", "parity_gradient_error", "parity_curve_error",
    "model_flops_per_second_per_device",
)  # fmt: skip
"""Columns of results.csv that the page has, in this order."""

RATIO = "× baseline"
NOT_FROM_ZERO = ("num_alloc_retries",)
"""Columns that are left out where all values are zero."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CellTable:
    """All cells: texts by column."""

    labels: list[str]
    """Headings of the columns that tell cells apart."""
    measures: list[str]
    """Headings of the columns of numbers."""
    rows: list[list[str]]
    """Status, labels, measures, flags, why; one a cell, in the order of the sweep."""
    files: list[str]
    """Record of each cell as a relative link; none in a large sweep."""

    @property
    def headings(self) -> list[str]:
        """Of every column."""
        return ["status", *self.labels, *self.measures, "flags", "why"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Heat:
    """The heat map as the page first shows it; the script makes the others."""

    row_label: str
    column_label: str
    columns: list[str]
    rows: list[tuple[str, list[tuple[str, str, int]]]]
    """Value → (text, status, tenths of the best) of each cell."""
    measure: str


def cell_table(tables: Tables) -> CellTable:
    """Every planned cell with its labels, numbers, ratio to the baseline and reason."""
    results, in_full = tables.results, len(tables.results) <= MOST_CELLS_IN_FULL
    labels = formatting.labels(results)
    numbers = {heading: texts for name in SHOWN for heading, texts in _measure(results, name)}
    if ratios := ratios_to_baseline(results):
        place = list(numbers).index(_heading(SPEED)) + 1
        numbers = dict([*list(numbers.items())[:place], (RATIO, ratios), *list(numbers.items())[place:]])
    reasons = [
        NONE if code == NONE else f"{code}: {single_line(reason)}" if in_full else code
        for code, reason in zip(results["reason_code"], results["reason"], strict=True)
    ]
    columns = [
        [f"{GLYPHS[status]} {status}" for status in results["status"]],
        *(labels[name].tolist() for name in labels.columns),
        *numbers.values(),
        [single_line(text) for text in results["flags"]],
        reasons,
    ]
    return CellTable(
        labels=[str(name) for name in labels.columns],
        measures=list(numbers),
        rows=[[*row[:-2], *("" if text == NONE else text for text in row[-2:])] for row in zip(*columns, strict=True)],
        files=_files(tables) if in_full else [],
    )


def _measure(results: pd.DataFrame, name: str) -> list[tuple[str, list[str]]]:
    """The heading and texts of a column, where anything was measured for it."""
    values = results[name]
    if not values.notna().any() or (name in NOT_FROM_ZERO and not (values.fillna(0) != 0).any()):
        return []
    heading, form = formatting.MEASURED[name]
    return [(heading, [formatting.UNKNOWN if pd.isna(value) else form(float(value)) for value in values])]


def _heading(name: str) -> str:
    return formatting.MEASURED[name][0]


def _files(tables: Tables) -> list[str]:
    return [
        f"{tables.roots.get(row.sweep, '')}cells/{row.record.slug}/record.json" if row.record else ""
        for row in tables.rows
    ]


def ratios_to_baseline(results: pd.DataFrame) -> list[str]:
    """Tokens/s/device ÷ that of the baseline: the first cell of the same group that is ok. Empty where none is."""
    speeds = [None if pd.isna(value) else float(value) for value in results[SPEED]]
    first: dict[str, float] = {}
    groups = group_names(results)
    for group, speed in zip(groups, speeds, strict=True):
        if speed:
            first.setdefault(group, speed)
    if not first:
        return []
    pairs = zip(groups, speeds, strict=True)
    return [formatting.UNKNOWN if speed is None else f"{speed / first[group]:.2f}" for group, speed in pairs]


# --- sentences -----------------------------------------------------------------------------------------------------


def sentences(tables: Tables) -> list[tuple[str, list[str]]]:
    """Heading and sentences, a paragraph each: the fastest, what broke, what was changed."""
    return [
        ("Fastest that fits", best_cells(tables.results, MOST_GROUPS) or ["No cell has a speed."]),
        ("What broke", [broke(tables.results)]),
        ("What was changed", [_changed(tables)]),
    ]


def _changed(tables: Tables) -> str:
    """What varies and with how many values; what all cells share stands above."""
    labels = formatting.labels(tables.results)
    varied = [f"{name} ({labels[name].nunique()})" for name in labels.columns if labels[name].nunique() > 1]
    return f"{', '.join(varied)}." if varied else "Nothing: one combination."


# --- heat map ------------------------------------------------------------------------------------------------------


def heat(table: CellTable) -> Heat | None:
    """Speed by the two labels that have most values; None where fewer than one varies."""
    counts = {label: len({row[1 + place] for row in table.rows}) for place, label in enumerate(table.labels)}
    fit = sorted((label for label in table.labels if 1 < counts[label] <= MOST_VALUES), key=lambda one: -counts[one])
    measure = next((name for name in (_heading(SPEED), *table.measures) if name in table.measures), None)
    if not fit or measure is None:
        return None
    row_label, column_label = fit[0], (fit[1] if len(fit) > 1 else fit[0])
    return _heat_of(table, row_label, column_label, measure)


def _heat_of(table: CellTable, row_label: str, column_label: str, measure: str) -> Heat:
    a, b = (1 + table.labels.index(label) for label in (row_label, column_label))
    at = 1 + len(table.labels) + table.measures.index(measure)
    is_single = row_label == column_label
    columns = ["all"] if is_single else list(dict.fromkeys(row[b] for row in table.rows))
    found: dict[tuple[str, str], list[list[str]]] = {}
    for row in table.rows:
        found.setdefault((row[a], "all" if is_single else row[b]), []).append(row)
    bests = {key: max(as_number(row[at]) for row in rows) for key, rows in found.items()}
    most = max((value for value in bests.values() if not math.isnan(value)), default=1.0) or 1.0
    values = list(dict.fromkeys(row[a] for row in table.rows))
    rows = [(value, [_square(found.get((value, column), []), at, most) for column in columns]) for value in values]
    return Heat(row_label=row_label, column_label="" if is_single else column_label, columns=columns, rows=rows,
                measure=measure)  # fmt: skip


def _square(rows: Sequence[list[str]], at: int, most: float) -> tuple[str, str, int]:
    """The best of the cells that are there; without a number, the most frequent status."""
    numbers = [(as_number(row[at]), row) for row in rows if not math.isnan(as_number(row[at]))]
    if numbers:
        value, row = max(numbers, key=lambda pair: pair[0])
        return row[at], "ok", max(0, min(10, round(10 * value / most)))
    statuses = [row[0].partition(" ")[2] for row in rows]
    if not statuses:
        return "", "absent", 0
    status = max(dict.fromkeys(statuses), key=statuses.count)
    return GLYPHS[status], status, 0


def as_number(text: str) -> float:
    """A text of the table as its number; NaN where there is none."""
    try:
        return float(text.replace(",", ""))
    except ValueError:
        return math.nan


# --- pictures ------------------------------------------------------------------------------------------------------


def memory_picture(tables: Tables) -> str:
    """Peak memory against speed; empty where no cell has both."""
    results, series = tables.results, _series(tables.results)
    points = []
    for place, (speed, peak) in enumerate(zip(results[SPEED], results[PEAK], strict=True)):
        if not pd.isna(speed) and not pd.isna(peak):
            title = f"{results['slug'].iloc[place]}: {formatting.significant(float(speed))} tokens/s/device"
            points.append(Point(x=peak / GIB, y=float(speed), series=series[place], title=title, row=place))
    return charts.scatter(points, "peak GiB a device", "tokens/s/device") if len(points) > 1 else ""


def batch_picture(tables: Tables) -> str:
    """Speed over the micro-batch, a line a combination that was measured with more than one; empty where none was."""
    results = tables.results
    labels = formatting.labels(results).drop(columns=["micro-batch", "global batch"], errors="ignore")
    names = formatting.row_labels(labels)
    sizes = _measured_sizes(results, names)
    points = []
    columns = zip(results["micro_batch_size"], results[SPEED], results["num_alloc_retries"], strict=True)
    for place, (batch, speed, retries) in enumerate(columns):
        if not pd.isna(speed) and len(sizes[names[place]]) > 1:
            title, doubtful = f"{names[place]}, micro-batch {batch}", not pd.isna(retries) and retries > 0
            if doubtful:
                title += f", {retries} allocator {'retry' if retries == 1 else 'retries'}"
            points.append(
                Point(x=float(batch), y=float(speed), series=names[place], title=title, row=place, is_doubtful=doubtful)
            )
    return charts.curves(points, "micro-batch", "tokens/s/device")


def _measured_sizes(results: pd.DataFrame, names: Sequence[str]) -> Mapping[str, set[int]]:
    """Combination → the micro-batches that it has a speed with."""
    sizes: dict[str, set[int]] = {}
    for name, batch, speed in zip(names, results["micro_batch_size"], results[SPEED], strict=True):
        if not pd.isna(speed):
            sizes.setdefault(name, set()).add(batch)
    return sizes


def _series(results: pd.DataFrame) -> list[str]:
    """The label that colours tell apart: the first with two to eight values."""
    labels = formatting.labels(results)
    fit = [name for name in labels.columns if 1 < labels[name].nunique() <= charts.NUM_COLOURS]
    return [str(value) for value in labels[fit[0]]] if fit else ["all"] * len(results)


def counts(tables: Tables) -> Mapping[str, int]:
    """Status → cells, every status that there is."""
    return {str(name): int(count) for name, count in tables.results["status"].value_counts().items()}
