"""A published table in its own layout, the published values and ours side by side: `layouts/<sweep>.yaml`."""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from benchrunner.core.cell import format_value
from benchrunner.core.errors import ConfigError, did_you_mean
from benchrunner.core.paths import config_dir
from benchrunner.machine.hardware import Hardware
from benchrunner.plan.expectation import Selection, read_selection
from benchrunner.plan.verdict import NO_PREDICTION
from benchrunner.report.columns import command_of
from benchrunner.report.compatibility import Pair
from benchrunner.report.formatting import significant
from benchrunner.report.original_metrics import QUANTITIES
from benchrunner.report.row import Row

CLAIM = "claim"
"""Instead of a quantity: whether something works, as the original says, as the rules say, as records say."""

DROPOUT = "model.dropout"
"""The one setting of a model that does not change its shape."""

NOTHING = "-"
"""What the original prints where it has no value, and we where there is nothing to divide."""

NO_NUMBER = {
    "oom": "OOM",
    "skipped.predicted_oom": "OOM (predicted)",
    "unsupported": "N/A",
    "skipped": "not run",
}
"""Reason code or status → what stands in the place of a number; others say their name."""

KEPT = frozenset({"skipped.predicted_oom", "skipped.excluded", NO_PREDICTION})
"""Codes of cells that were not run and will not be: no command fills them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of the original."""

    name: str
    quantity: str
    digits: int = 3
    decimals: int | None = None
    """Ours is rounded to so many, without the zeros at their end, as the original's are; None: to `digits`."""
    percent_over: str | None = None
    """The heading of the label that the quantity is given in per cent over; None: as it is."""
    cells: Selection | None = None
    """Which of a line's cells the column is about, where columns are about different ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line of the original: its labels, the cells that it is about, and what was published."""

    labels: tuple[str, ...]
    cells: Selection
    published: tuple[float | str | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TableLayout:
    """One table of the original."""

    title: str
    labels: tuple[str, ...]
    columns: tuple[Column, ...]
    lines: tuple[Line, ...]
    remarks: tuple[tuple[Selection, str], ...] = ()
    """Why a cell has a number where the original has a word."""
    probes: Mapping[str, Any] | None = None
    """Of which cells what searches tried gets lines, too; their label is the micro-batch. None: of none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """All tables that one sweep reproduces."""

    name: str
    title: str
    source: str
    machine: str
    """What the published values were measured on."""
    tables: tuple[TableLayout, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedTable:
    """A table as it is printed: every field a text."""

    title: str
    above: str
    """Who published it, what it was measured on, how ours differs, and what a formula leaves out."""
    frame: pd.DataFrame
    num_labels: int
    """Columns that name a line; behind them three for each column of the original."""
    notes: list[str]
    """Why a line has no number of ours, line by line, and the command that fills it where it was not run."""


def layout_names() -> list[str]:
    """The layouts that there are; each has the name of the sweep that fills it."""
    return sorted(path.stem for path in _folder().glob("*.yaml"))


def load_layout(name: str) -> Layout:
    """A layout by its name.

    Raises:
        ConfigError: there is none of that name.
    """
    names = layout_names()
    if name not in names:
        raise ConfigError("--layout", f"no layout {name!r}{did_you_mean(name, names)}; allowed: {', '.join(names)}")
    body = yaml.safe_load((_folder() / f"{name}.yaml").read_text(encoding="utf-8"))
    everywhere = body.get("cells", {})
    tables = tuple(_read_table(table, everywhere, f"layouts/{name}.yaml") for table in body["tables"])
    return Layout(name=name, title=body["title"], source=body["source"], machine=body["machine"], tables=tables)


def published_tables(
    layout: Layout, rows: Sequence[Row], hardware: Hardware, sweeps: Mapping[str, str] | None = None
) -> list[PublishedTable]:
    """The tables of a layout, filled from the rows of one sweep or of several; `sweeps`: title → its directory."""
    above = f"{layout.title}. Published: {layout.source}, on {layout.machine}. Ours differs: {deviations(layout.name)}"
    above = " ".join(
        [above, *_other_models(rows), *dict.fromkeys(_leaves_out(row) for row in rows if row.is_prediction)]
    )
    return [_fill(layout.name, table, above, rows, hardware, sweeps or {}) for table in layout.tables]


def _other_models(rows: Sequence[Row]) -> list[str]:
    """A sentence where overrides changed the models that the lines are called after."""
    changed = {
        f"{key}={format_value(value)}": None
        for row in rows
        for key, value in row.planned.cell.overrides.items()
        if key.startswith("model.") and key != DROPOUT
    }
    return [f"Not the published models: {' '.join(changed)}."] if changed else []


def deviations(name: str) -> str:
    """What a sweep's header says after `Differs from the original:`; empty where it says nothing."""
    path = config_dir() / "sweeps" / f"{name}.yaml"
    header = re.match(r"(?:#.*\n)+", path.read_text(encoding="utf-8")) if path.exists() else None
    text = " ".join(line.lstrip("# ") for line in header[0].splitlines()) if header else ""
    return text.partition("Differs from the original: ")[2]


def _folder() -> Path:
    return Path(__file__).parent / "layouts"


def _read_table(body: Mapping[str, Any], everywhere: Mapping[str, Any], place: str) -> TableLayout:
    columns = tuple(_read_column(column, place) for column in body["columns"])
    common, labels = {**everywhere, **body.get("cells", {})}, tuple(body["labels"])
    assert all(column.quantity in QUANTITIES or column.quantity == CLAIM for column in columns), place
    lines = tuple(_read_line(line, len(labels), len(columns), common, place) for line in body["lines"])
    probes = common if body.get("probes") else None
    remarks = tuple((read_selection({**common, **one["cells"]}, place), one["text"]) for one in body.get("remarks", ()))
    return TableLayout(title=body["title"], labels=labels, columns=columns, lines=lines, remarks=remarks, probes=probes)


def _lines_of(table: TableLayout, rows: Sequence[Row], hardware: Hardware) -> list[Line]:
    """Those of the original, and one for each size that a search tried beside them."""
    sizes = sorted({row.planned.cell.sizes.micro_batch_size for row in rows if row.planned.probe_of})
    nothing, more = (None,) * len(table.columns), []
    for size in sizes if table.probes else ():
        cells = read_selection({**(table.probes or {}), "micro_batch_size": size}, table.title)
        meant = [row.planned.cell for row in rows if cells.has(row.planned.cell, hardware)]
        if meant and not any(line.cells.has(meant[0], hardware) for line in table.lines):
            more.append(Line(labels=(str(size),), cells=cells, published=nothing))
    return [*table.lines, *more]


def _read_column(body: Mapping[str, Any], place: str) -> Column:
    cells = body.get("cells")
    return Column(**{**body, "cells": None if cells is None else read_selection(cells, place)})


def _read_line(line: list[Any], num_labels: int, num_columns: int, common: Mapping[str, Any], place: str) -> Line:
    """[label, …, {key: pattern}, published, …]."""
    labels, cells, published = line[:num_labels], line[num_labels], line[num_labels + 1 :]
    assert len(published) == num_columns, f"{place}: {line}"
    selection = read_selection({**common, **cells}, place)
    return Line(labels=tuple(map(str, labels)), cells=selection, published=tuple(published))


# --- filled ---------------------------------------------------------------------------------------------------------


def _fill(
    name: str, table: TableLayout, above: str, rows: Sequence[Row], hardware: Hardware, sweeps: Mapping[str, str]
) -> PublishedTable:
    texts, notes = [], []
    for line in _lines_of(table, rows, hardware):
        meant = [row for row in rows if line.cells.has(row.planned.cell, hardware)]
        of_columns = [_of_column(column, meant, hardware) for column in table.columns]
        texts.append([*line.labels, *_fields(table, line, of_columns)])
        reasons = _reasons(name, table.columns, of_columns, sweeps)
        notes += [f"{_place(line, names)}: {why}" for why, names in reasons.items()]
        said = [*filter(None, map(_executors, meant)), *_remarks(table, meant, hardware)]
        notes += [f"{_place(line, ())}: {words}" for words in dict.fromkeys(said)]
    headings = [*table.labels, *(heading for column in table.columns for heading in _headings(column))]
    frame = pd.DataFrame(texts, columns=headings)
    return PublishedTable(title=table.title, above=above, frame=frame, num_labels=len(table.labels), notes=notes)


def _of_column(column: Column, meant: Sequence[Row], hardware: Hardware) -> list[Row]:
    """The cells of a line that a column is about."""
    return [row for row in meant if column.cells is None or column.cells.has(row.planned.cell, hardware)]


def _place(line: Line, names: Sequence[str]) -> str:
    """Labels of the line, and the columns where not all are meant."""
    return ", ".join([*filter(None, line.labels), *names])


def _remarks(table: TableLayout, meant: Sequence[Row], hardware: Hardware) -> list[str]:
    """What the layout says of the cells that have numbers."""
    measured = [row.planned.cell for row in _answered(meant)]
    return [text for cells, text in table.remarks if any(cells.has(cell, hardware) for cell in measured)]


def _executors(row: Row) -> str | None:
    """What thunder gave its operations to, which decides what a cell of it is; None for other compilers."""
    ranks = row.record.ranks if row.record and row.metrics else []
    names = ranks[0].get("choices", {}).get("thunder_executors") if ranks else None
    return f"thunder's executors were {', '.join(names)}" if names else None


def _leaves_out(row: Row) -> str:
    predicted = row.planned.predicted or {}
    return f"Predicted, not run. Limits of {predicted.get('method')}: {predicted.get('note', 'none known')}."


def _headings(column: Column) -> list[str]:
    if column.quantity == CLAIM:
        return [f"{column.name}: claimed", "rule", "observed"]
    return [column.name, "published", "ours ÷ published"]


def _fields(table: TableLayout, line: Line, of_columns: Sequence[Sequence[Row]]) -> list[str]:
    labels = dict(zip(table.labels, line.labels, strict=True))
    return [
        text
        for column, value, meant in zip(table.columns, line.published, of_columns, strict=True)
        for text in (_claim(value, meant) if column.quantity == CLAIM else _compared(column, value, meant, labels))
    ]


def _compared(
    column: Column, published: float | str | None, meant: Sequence[Row], labels: Mapping[str, str]
) -> list[str]:
    ours = _ours(column, meant, labels)
    text = ours if isinstance(ours, str) else _number(ours, column)
    if isinstance(ours, str) or not isinstance(published, (int, float)) or not published:
        return [text, _published(published, column), NOTHING]
    return [text, _published(published, column), f"{_rounded(ours, column) / published:.2f}"]


def _ours(column: Column, meant: Sequence[Row], labels: Mapping[str, str]) -> float | str:
    answered = _answered(meant)
    if not answered:
        return _without_number(meant[0]) if meant else NOTHING
    value = QUANTITIES[column.quantity](answered[0])
    if value is None:
        return NOTHING
    if column.percent_over is None:
        return value
    return 100 * (value / float(labels[column.percent_over].replace(",", "")) - 1)


def _without_number(row: Row) -> str:
    return NO_NUMBER.get(row.reason_code) or NO_NUMBER.get(row.status, row.status)


def _answered(meant: Sequence[Row]) -> list[Row]:
    """The cells that have numbers: measured, or predicted where that is what was asked for."""
    return [row for row in meant if row.metrics or row.is_prediction]


def _rounded(value: float, column: Column) -> float:
    """As the original rounds, where it is known how."""
    return value if column.decimals is None else round(value, column.decimals)


def _number(value: float, column: Column) -> str:
    """Counts whole, everything else rounded; a difference with its sign."""
    sign = "+" if column.percent_over and value > 0 else ""
    if isinstance(value, int) or column.decimals is not None:
        return f"{sign}{_rounded(value, column):,}"
    return sign + significant(value, column.digits)


def _published(value: float | str | None, column: Column) -> str:
    """As it was printed: a number with the digits that it has."""
    if value is None:
        return NOTHING
    sign = "+" if column.percent_over and not isinstance(value, str) and value > 0 else ""
    return value if isinstance(value, str) else f"{sign}{value:,}"


def _claim(claimed: Any, meant: Sequence[Row]) -> list[str]:
    pair = Pair()
    for row in meant:
        pair.add(row)
    codes = sorted({row.planned.reason_code or "" for row in meant if row.planned.verdict == "unsupported"})
    return [str(claimed), ", ".join(codes) or NOTHING, pair.text]


# --- why there is no number -----------------------------------------------------------------------------------------


def _reasons(
    layout: str, columns: Sequence[Column], of_columns: Sequence[Sequence[Row]], sweeps: Mapping[str, str]
) -> dict[str, list[str]]:
    """Why columns of a line have no number of ours → their names; none where a reason holds for the whole line."""
    whys = [_why_not(layout, column, meant, sweeps) for column, meant in zip(columns, of_columns, strict=True)]
    named: dict[str, list[str]] = {}
    for column, why in zip(columns, whys, strict=True):
        if why is not None:
            named.setdefault(why, []).append(column.name)
    return {why: [] if len(names) == len(columns) else names for why, names in named.items()}


def _why_not(layout: str, column: Column, meant: Sequence[Row], sweeps: Mapping[str, str]) -> str | None:
    """Why a field has no number of ours, and what fills it; None where it has one."""
    if not meant:
        return f"not in this sweep; bench +sweeps={layout} has it"
    answered = _answered(meant)
    if answered:
        is_known = column.quantity == CLAIM or QUANTITIES[column.quantity](answered[0]) is not None
        return None if is_known else "the cell is ok; nothing counts this on its device"
    row = meant[0]
    return f"{row.reason_code}: {row.reason}{_filled_by(row, sweeps)}"


def _filled_by(row: Row, sweeps: Mapping[str, str]) -> str:
    """The command that fills a field which was not run, and that alone; a second call finds nothing left to do."""
    if row.status != "skipped" or row.reason_code in KEPT:
        return ""
    if row.sweep in sweeps:
        return f"; fill it by: bench resume {shlex.quote(sweeps[row.sweep])} --cells {row.planned.cell.cell_id}"
    return f"; fill it by: {command_of(row)}"
