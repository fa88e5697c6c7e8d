"""Tables → one self-contained HTML page. Text from logs can break none of it."""

from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup

from benchrunner.core.text import single_line
from benchrunner.report import formatting, page
from benchrunner.report.cell_details import packed_details
from benchrunner.report.content import Tables
from benchrunner.report.expectations import expectations_table, expected_of
from benchrunner.report.markdown import LEGEND, is_numeric

HERE = Path(__file__).parent

FIRST_ROWS = 50
"""Of a large sweep, that the browser lays out before the script takes over."""

LONGEST_WORD = 60
"""Characters that stay on one line of the page."""


def to_html(tables: Tables) -> str:
    """The report as one page: everything inside it, nothing loaded, every text escaped."""
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_visible,
    )
    table, reasons = page.cell_table(tables), formatting.as_text(tables.reasons)
    return environment.from_string(_file("report.html.jinja")).render(
        tables=tables,
        table=table,
        state="partial" if tables.banner or any(row.is_waiting for row in tables.rows) else "complete",
        first_rows=len(table.rows) if table.files else FIRST_ROWS,
        kinds=_kinds(table),
        counts=page.counts(tables),
        glyphs=page.GLYPHS,
        sentences=page.sentences(tables),
        heat=page.heat(table),
        memory=page.memory_picture(tables),
        batches=page.batch_picture(tables),
        details=packed_details(tables.rows, tables.roots, expected_of(tables.expectations)),
        reasons=reasons,
        reason_kinds=[_kind(reasons.iloc[:, index]) for index in range(len(reasons.columns))],
        predicted=formatting.predicted_table(tables.results),
        expected=expectations_table(tables.expectations),
        legend=LEGEND,
        style=_file("report.css"),
        script=_file("report.js"),
    )


def _visible(value: Any) -> Any:
    """Text without what is not seen; markup that was made here stays what it is."""
    return single_line(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _file(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


def _kinds(table: page.CellTable) -> list[str]:
    """How each column is set: numbers to the right, words on one line, longer text wrapped."""
    return [_kind(pd.Series(column, dtype="object")) for column in zip(*table.rows, strict=True)]


def _kind(column: pd.Series) -> str:
    if is_numeric(column):
        return "number"
    return "word" if max((len(str(value)) for value in column), default=0) <= LONGEST_WORD else "text"
