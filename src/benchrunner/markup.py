"""Tables → CSV, Markdown, one self-contained HTML page. Text from logs can break none of them."""

import re
from pathlib import Path

import jinja2
import pandas as pd

from benchrunner import display
from benchrunner.compatibility import Matrix
from benchrunner.tables import Block, Tables

TEMPLATE = Path(__file__).with_name("report.html.jinja")

_MARKDOWN = re.compile(r"([\\`*\[\]|~$])|(?<!\w)(_)|(_)(?!\w)")
"""What Markdown would read as markup; an underscore inside a word is none."""

_HTML = str.maketrans({"<": "&lt;", ">": "&gt;", "&": "&amp;"})
LONGEST_WORD = 60
"""Characters that stay on one line of the page."""

_CONTROL = re.compile(r"\x1b\[[0-9;]*[A-Za-z]|[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def to_csv(frame: pd.DataFrame) -> str:
    """CSV with NA for unknown numbers and six significant digits; line breaks inside a field become spaces."""
    flat = frame.copy()
    for name in flat.columns:
        if flat[name].dtype == object or pd.api.types.is_string_dtype(flat[name]):
            flat[name] = [one_line(str(value)) for value in flat[name]]
    return flat.to_csv(index=False, na_rep="NA", float_format="%.6g", lineterminator="\n")


def one_line(text: str) -> str:
    """`text` without line breaks, control characters and direction marks."""
    return " ".join(_CONTROL.sub(" ", text).split())


def escape_markdown(text: str) -> str:
    """`text` as it stands, in any place of a Markdown table."""
    escaped = _MARKDOWN.sub(lambda hit: "\\" + hit[0], one_line(text).translate(_HTML))
    return re.sub(r"(https?)(://)", r"\1&#58;//", escaped) or display.UNKNOWN


def to_markdown(frame: pd.DataFrame, *, index: str | None = None) -> str:
    """A Markdown table; `index` is the heading of the index column, null: no such column."""
    shown = frame if index is None else frame.rename_axis(index).reset_index()
    lines = [shown.columns.tolist(), *shown.to_numpy().tolist()]
    cells = [[escape_markdown(str(value)) for value in line] for line in lines]
    widths = [max(3, *(len(line[column]) for line in cells)) for column in range(len(shown.columns))]
    right = [index is None and _is_numeric(shown.iloc[:, column]) for column in range(len(widths))]
    rule = [("-" * (width - 1) + ":") if numeric else "-" * width for width, numeric in zip(widths, right, strict=True)]
    padded = [
        [
            text.rjust(width) if numeric else text.ljust(width)
            for text, width, numeric in zip(line, widths, right, strict=True)
        ]
        for line in cells
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in [padded[0], rule, *padded[1:]])


def _is_numeric(column: pd.Series) -> bool:
    texts = [str(value) for value in column]
    return bool(texts) and all(re.fullmatch(r"[\d,.–-]+(e[+-]\d+)?", text) for text in texts)


def results_markdown(tables: Tables) -> str:
    """results.md."""
    parts = [f"# Results: {escape_markdown(tables.title)}", *map(escape_markdown, tables.summary)]
    parts += _section("Measured", display.measured_table(tables.results))
    parts += _section("Not measured", display.unmeasured_table(tables.results))
    parts += _notes(tables)
    return "\n\n".join([*parts, *map(_environment, tables.environments)]) + "\n"


def compatibility_markdown(tables: Tables) -> str:
    """compatibility.md."""
    parts = [f"# Compatibility: {escape_markdown(tables.title)}", LEGEND]
    for matrix in tables.matrices:
        parts += _matrix(matrix)
    parts += _section("Reasons", display.as_text(tables.reasons))
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


def to_html(tables: Tables) -> str:
    """The report as one page: everything inside it, nothing loaded, every text escaped."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    sections = [
        ("Measured", display.measured_table(tables.results)),
        ("Not measured", display.unmeasured_table(tables.results)),
        ("Reasons", display.as_text(tables.reasons)),
    ]
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        tables=tables,
        sections=[(title, frame, _kinds(frame)) for title, frame in sections if len(frame)],
        legend=LEGEND,
    )


def _kinds(frame: pd.DataFrame) -> list[str]:
    """How each column is set: numbers to the right, words on one line, longer text wrapped."""
    columns = [frame.iloc[:, index] for index in range(len(frame.columns))]
    return ["number" if _is_numeric(column) else _kind_of_text(column) for column in columns]


def _kind_of_text(column: pd.Series) -> str:
    return "word" if max(len(str(value)) for value in column) <= LONGEST_WORD else "text"
