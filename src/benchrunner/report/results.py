"""The results table: one row a planned cell, also for those that did not run, and never a blank."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from benchrunner.core.cell import format_value
from benchrunner.report.columns import COLUMNS
from benchrunner.report.row import Row

SETTING = "config."
"""Before the dotted key, the name of a column that some sweeps have: a setting that overrides vary there."""

_DTYPES = {"text": "object", "int": "Int64", "float": "Float64"}


def results_table(rows: Sequence[Row], names: Iterable[str] = tuple(COLUMNS)) -> pd.DataFrame:
    """One line a row, columns and dtypes as in COLUMNS (or some of them); unknown numbers are NA."""
    columns = {}
    for name in names:
        kind, value_of = COLUMNS[name]
        columns[name] = pd.Series([_number(value_of(row), kind) for row in rows], dtype=_DTYPES[kind])
    return pd.DataFrame(columns)


def varied_settings(rows: Sequence[Row]) -> pd.DataFrame:
    """A column for each leaf that overrides vary between the rows, as `config.KEY`; texts as overrides read them."""
    changed = dict.fromkeys(key for row in rows for key in row.planned.cell.overrides)
    columns = {key: [_setting(row, key) for row in rows] for key in changed}
    return pd.DataFrame({SETTING + key: texts for key, texts in columns.items() if len(set(texts)) > 1}, dtype="object")


def _setting(row: Row, key: str) -> str:
    value: Any = row.planned.cell.config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else getattr(value, part, None)
    return format_value(getattr(value, "name", value))


def _number(value: Any, kind: str) -> Any:
    """A value of its column's kind; None, never text, among numbers."""
    if kind == "text":
        return str(value)
    if value is None or isinstance(value, str) or value != value:
        return None
    return int(value) if kind == "int" else float(value)


def count_statuses(results: pd.DataFrame) -> Mapping[str, int]:
    """Status → number of cells, most frequent first."""
    return {str(status): int(count) for status, count in results["status"].value_counts().items()}


def reasons_table(results: pd.DataFrame) -> pd.DataFrame:
    """Every reason code with the number of its cells and the first cell's sentence."""
    others = results[results["status"] != "ok"]
    grouped = others.groupby(["status", "reason_code"], sort=False)
    return pd.DataFrame(
        [(status, code, len(cells), cells["reason"].iloc[0]) for (status, code), cells in grouped],
        columns=["status", "reason_code", "num_cells", "reason"],
    )
