"""Tables → one self-contained HTML page. Text from logs can break none of it."""

from pathlib import Path

import jinja2
import pandas as pd

from benchrunner.core.text import single_line
from benchrunner.report import formatting
from benchrunner.report.content import Tables
from benchrunner.report.markdown import LEGEND, is_numeric

TEMPLATE = Path(__file__).with_name("report.html.jinja")


LONGEST_WORD = 60
"""Characters that stay on one line of the page."""


def to_html(tables: Tables) -> str:
    """The report as one page: everything inside it, nothing loaded, every text escaped."""
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: single_line(value) if isinstance(value, str) else value,
    )
    sections = [
        ("Measured", formatting.measured_table(tables.results)),
        ("Not measured", formatting.unmeasured_table(tables.results)),
        ("Reasons", formatting.as_text(tables.reasons)),
    ]
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        tables=tables,
        sections=[(title, frame, _kinds(frame)) for title, frame in sections if len(frame)],
        legend=LEGEND,
    )


def _kinds(frame: pd.DataFrame) -> list[str]:
    """How each column is set: numbers to the right, words on one line, longer text wrapped."""
    columns = [frame.iloc[:, index] for index in range(len(frame.columns))]
    return ["number" if is_numeric(column) else _kind_of_text(column) for column in columns]


def _kind_of_text(column: pd.Series) -> str:
    return "word" if max(len(str(value)) for value in column) <= LONGEST_WORD else "text"
