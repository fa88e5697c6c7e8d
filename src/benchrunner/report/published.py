"""A published table in its own layout, the published values and ours side by side: `layouts/<sweep>.yaml`."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from benchrunner.core.errors import ConfigError, did_you_mean
from benchrunner.core.paths import config_dir
from benchrunner.machine.hardware import Hardware
from benchrunner.plan.expectation import Selection, read_selection
from benchrunner.report.compatibility import Pair
from benchrunner.report.formatting import significant
from benchrunner.report.original_metrics import QUANTITIES
from benchrunner.report.results import Row, command_of

CLAIM = "claim"
"""Instead of a quantity: whether something works, as the original says, as the rules say, as records say."""

NOTHING = "-"
"""What the original prints where it has no value, and we where there is nothing to divide."""

NO_NUMBER = {"oom": "OOM", "unsupported": "N/A", "skipped": "not run"}
"""Status → what stands in the place of a number; others say their name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of the original."""

    name: str
    quantity: str
    digits: int = 3


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
    """Who published it, what it was measured on, and how ours differs."""
    frame: pd.DataFrame
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
    tables = tuple(_read_table(table, f"layouts/{name}.yaml") for table in body["tables"])
    return Layout(name=name, title=body["title"], source=body["source"], machine=body["machine"], tables=tables)


def published_tables(layout: Layout, rows: Sequence[Row], hardware: Hardware) -> list[PublishedTable]:
    """The tables of a layout, filled from the rows of one sweep or of several."""
    above = f"{layout.title}. Published: {layout.source}, on {layout.machine}. Ours differs: {deviations(layout.name)}"
    return [_fill(table, above, rows, hardware) for table in layout.tables]


def deviations(name: str) -> str:
    """What a sweep's header says after `Differs from the original:`; empty where it says nothing."""
    path = config_dir() / "sweeps" / f"{name}.yaml"
    header = re.match(r"(?:#.*\n)+", path.read_text(encoding="utf-8")) if path.exists() else None
    text = " ".join(line.lstrip("# ") for line in header[0].splitlines()) if header else ""
    return text.partition("Differs from the original: ")[2]


def _folder() -> Path:
    return Path(__file__).parent / "layouts"


def _read_table(body: Mapping[str, Any], place: str) -> TableLayout:
    columns = tuple(Column(**column) for column in body["columns"])
    common, labels = body.get("cells", {}), tuple(body["labels"])
    assert all(column.quantity in QUANTITIES or column.quantity == CLAIM for column in columns), place
    lines = tuple(_read_line(line, len(labels), len(columns), common, place) for line in body["lines"])
    probes = common if body.get("probes") else None
    return TableLayout(title=body["title"], labels=labels, columns=columns, lines=lines, probes=probes)


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


def _read_line(line: list[Any], num_labels: int, num_columns: int, common: Mapping[str, Any], place: str) -> Line:
    """[label, …, {key: pattern}, published, …]."""
    labels, cells, published = line[:num_labels], line[num_labels], line[num_labels + 1 :]
    assert len(published) == num_columns, f"{place}: {line}"
    selection = read_selection({**common, **cells}, place)
    return Line(labels=tuple(map(str, labels)), cells=selection, published=tuple(published))


# --- filled ---------------------------------------------------------------------------------------------------------


def _fill(table: TableLayout, above: str, rows: Sequence[Row], hardware: Hardware) -> PublishedTable:
    texts, notes = [], []
    for line in _lines_of(table, rows, hardware):
        meant = [row for row in rows if line.cells.has(row.planned.cell, hardware)]
        texts.append([*line.labels, *_fields(table.columns, line.published, meant)])
        note = _why_not(meant)
        notes += [f"{', '.join(label for label in line.labels if label)}: {note}"] if note else []
    headings = [*table.labels, *(heading for column in table.columns for heading in _headings(column))]
    return PublishedTable(title=table.title, above=above, frame=pd.DataFrame(texts, columns=headings), notes=notes)


def _headings(column: Column) -> list[str]:
    if column.quantity == CLAIM:
        return [f"{column.name}: claimed", "rule", "observed"]
    return [column.name, "published", "ours ÷ published"]


def _fields(columns: Sequence[Column], published: Sequence[Any], meant: Sequence[Row]) -> list[str]:
    return [
        text
        for column, value in zip(columns, published, strict=True)
        for text in (_claim(value, meant) if column.quantity == CLAIM else _compared(column, value, meant))
    ]


def _compared(column: Column, published: float | str | None, meant: Sequence[Row]) -> list[str]:
    ours = _ours(column, meant)
    text = ours if isinstance(ours, str) else _number(ours, column)
    if isinstance(ours, str) or not isinstance(published, (int, float)) or not published:
        return [text, _published(published, column), NOTHING]
    return [text, _published(published, column), f"{ours / published:.2f}"]


def _ours(column: Column, meant: Sequence[Row]) -> float | str:
    measured = [row for row in meant if row.metrics]
    if measured:
        value = QUANTITIES[column.quantity](measured[0])
        return NOTHING if value is None else value
    return NO_NUMBER.get(meant[0].status, meant[0].status) if meant else NOTHING


def _number(value: float, column: Column) -> str:
    """Counts whole, everything else rounded."""
    return f"{value:,}" if isinstance(value, int) else significant(value, column.digits)


def _published(value: float | str | None, column: Column) -> str:
    """As it was printed: a number with the digits that it has."""
    if value is None:
        return NOTHING
    return value if isinstance(value, str) else f"{value:,}"


def _claim(claimed: Any, meant: Sequence[Row]) -> list[str]:
    pair = Pair()
    for row in meant:
        pair.add(row)
    codes = sorted({row.planned.reason_code or "" for row in meant if row.planned.verdict == "unsupported"})
    return [str(claimed), ", ".join(codes) or NOTHING, pair.text]


def _why_not(meant: Sequence[Row]) -> str | None:
    """Why no cell of a line measured anything; None where one did."""
    if any(row.metrics for row in meant):
        return None
    if not meant:
        return "not in this sweep"
    row = meant[0]
    again = f"; fill it by: {command_of(row)}" if row.status == "skipped" else ""
    return f"{row.reason_code}: {row.reason}{again}"
