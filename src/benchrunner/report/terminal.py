"""Tables on the terminal: aligned where they fit, stacked where they do not, plain text when piped.

Reasons are wrapped under their row and never cut.
"""

import re
import shutil
import textwrap
from collections import Counter
from collections.abc import Collection, Iterable, Sequence

import pandas as pd
from rich.console import Console
from rich.text import Text

from benchrunner.core import arithmetic
from benchrunner.core.text import single_line
from benchrunner.plan.costs import expected_row_s
from benchrunner.plan.doctor import Diagnosis
from benchrunner.plan.explain import Explanation
from benchrunner.plan.plan import Plan, PlannedCell
from benchrunner.plan.predict import Prediction
from benchrunner.report import formatting
from benchrunner.report.compatibility import Matrix
from benchrunner.report.content import Tables, shared_sentences
from benchrunner.report.expectations import expectations_table
from benchrunner.report.markdown import LEGEND
from benchrunner.report.results import IDENTIFYING, NONE, Row, results_table

STYLES = {
    "PARTIAL:": "bold yellow",
    "ok": "green",
    "run": "green",
    "yes": "green",
    "unsupported": "yellow",
    "skipped": "dim",
    "no": "yellow",
    "oom": "magenta",
    "invalid": "red",
    "timeout": "red",
    "failed": "red",
}
"""First word of a line → its colour."""

PIPED_WIDTH = 160
INDENT = "    "


def print_tables(tables: Tables) -> None:
    """Results and compatibility on stdout, remarks about the files on stderr."""
    width = _width()
    said = (tables.title, *tables.banner, *tables.summary)
    above = [line for text in said for line in _paragraph(text, width)]
    _print([*above, ""])
    for line in dict.fromkeys(table.above for table in tables.published):
        _print([*_paragraph(line, width), ""])
    for table in tables.published:
        _print_section(table.title, aligned(table.frame, width))
        _print([line for note in table.notes for line in _paragraph(f"- {note}", width)] + [""])
    if tables.expectations:
        _print_section("Expected", with_reasons(expectations_table(tables.expectations), width))
    _print_section("Found by search", with_reasons(formatting.searches_table(tables.results), width))
    _print_section("Measured", aligned(formatting.measured_table(tables.results), width))
    _print_section("Not measured", with_reasons(formatting.unmeasured_table(tables.results), width))
    for matrix in tables.matrices:
        _print_section(matrix.title, matrix_lines(matrix, width))
    _print(textwrap.wrap(LEGEND, width))
    _print((line for note in tables.notes for line in textwrap.wrap(f"note: {single_line(note)}", width)), stderr=True)


def print_plan(plan: Plan, only: Collection[str] = ("run", "unsupported", "skipped")) -> None:
    """Every planned cell, or those of some verdicts: what tells it apart, predicted memory and time, and why not."""
    width = _width()
    frame = plan_table(plan)
    machine, count = plan.hardware, len(plan.cells)
    cells = "1 cell" if count == 1 else f"{count:,} cells"
    head = f"{cells} planned for {machine.num_devices} × {machine.device_name} ({machine.name}): {plan_counts(plan)}"
    _print(_paragraph(head, width))
    _print([line for text in plan_shared(plan) for line in _paragraph(text, width)])
    _print([""])
    shown = frame[frame["verdict"].isin(list(only))]
    _print(with_reasons(_folded(shown), width))


def print_explanation(planned: PlannedCell, found: Explanation) -> None:
    """The terms of one cell's prediction: memory at the peak, and a step's seconds by resource."""
    width, predicted = _width(), planned.predicted or {}
    _print([planned.cell.slug, ""])
    memory = [(name, formatting.gib(value)) for name, value in found.memory_bytes.items()]
    memory += [("sum", formatting.gib(sum(found.memory_bytes.values())))]
    memory += [("beside the allocator", formatting.gib(found.outside_bytes))] if found.outside_bytes else []
    _print_section(f"Peak memory, reached in {found.phase}", _terms(["term", "GiB"], memory, width))
    rows = [
        (name, formatting.number(1e3 * found.ideal_s[name]), formatting.number(found.efficiencies[name]),
         formatting.number(1e3 * seconds))
        for name, seconds in found.step_s.items()
    ]  # fmt: skip
    rows += [("sum", "", "", formatting.number(1e3 * sum(found.step_s.values())))] if rows else []
    heads = ["resource", "ms at data-sheet rate", "share of it reached", "ms"]
    _print_section("Step time", _terms(heads, rows, width))
    capacity = formatting.gib(predicted.get("capacity_bytes"))
    fit = str(predicted.get("fit") or "unknown").replace("_", " ")
    _print([f"predicted by {predicted.get('method')}: {_peak(predicted)} GiB of {capacity} GiB: {fit}"])
    _print(textwrap.wrap(predicted.get("note", ""), width))


def _terms(heads: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[str]:
    return aligned(pd.DataFrame(list(rows), columns=list(heads)), width)


def print_doctor(diagnosis: Diagnosis) -> None:
    """What a machine is and what it can run."""
    width = _width()
    _print(_pairs(diagnosis.facts, width))
    for axis, lines in diagnosis.axes.items():
        frame = pd.DataFrame(lines, columns=["works", axis, "reason"], dtype="object")
        _print_section(axis, with_reasons(frame.rename(columns={axis: "value"}), width))
    _print_warnings(diagnosis, width)


def print_sections(sections: Iterable[tuple[str, Sequence[str]]]) -> None:
    """Titles with lines, each line whole: paths and commands are there to be copied."""
    for title, lines in sections:
        _print_section(title, [single_line(line) for line in lines])


def plan_table(plan: Plan) -> pd.DataFrame:
    """The plan as text: verdict, labels, prediction, reason."""
    frame = formatting.labels(results_table(_plan_rows(plan), (*IDENTIFYING, "nodes")))
    frame.insert(0, "verdict", [planned.verdict for planned in plan.cells])
    predicted = [planned.predicted or {} for planned in plan.cells]
    optional = {
        "first probe": [str(one.get("micro_batch_size") or NONE) for one in predicted],
        "peak GiB": [_peak(one) for one in predicted],
        "fit": [str(one.get("fit") or NONE).replace("_", " ") for one in predicted],
        "step ms": [_milliseconds(one) for one in predicted],
        "tokens/s/device": [formatting.number(one.get("tokens_per_second_per_device")) for one in predicted],
        "MFU %": [_percent(one.get("mfu")) for one in predicted],
        "limited by": [one.get("limited_by") or NONE for one in predicted],
        "predicted by": _methods(predicted),
        "flags": [" ".join(planned.flags) or NONE for planned in plan.cells],
    }
    for name, texts in optional.items():
        if set(texts) - {formatting.UNKNOWN, NONE}:
            frame[name] = texts
    frame["reason"] = [_verdict_reason(planned.reason_code, planned.reason) for planned in plan.cells]
    return frame


def _peak(predicted: Prediction) -> str:
    """The peak with its margin, or as the bound that it is."""
    text = formatting.gib(predicted.get("peak_memory_bytes"))
    if text == formatting.UNKNOWN:
        return text
    margin = predicted.get("margin")
    return f"≥ {text}" if predicted.get("bound") == "lower" else f"{text} ± {margin:.0%}" if margin else text


def _milliseconds(predicted: Prediction) -> str:
    """The step's time, and the interval that should hold it nine times out of ten."""
    seconds = predicted.get("step_time_s")
    if seconds is None:
        return formatting.UNKNOWN
    low, high = predicted.get("step_time_low_s"), predicted.get("step_time_high_s")
    bounds = f" ({formatting.number(1e3 * low)}–{formatting.number(1e3 * high)})" if low and high else ""
    return formatting.number(1e3 * seconds) + bounds


def _percent(share: float | None) -> str:
    return formatting.number(None if share is None else 100 * share)


def _methods(predicted: Sequence[Prediction]) -> list[str]:
    """How each was predicted, where that is not how everything is."""
    methods = [one.get("method") or NONE for one in predicted]
    return methods if set(methods) - {"analytic"} else [NONE] * len(methods)


def _plan_rows(plan: Plan) -> list[Row]:
    here = plan.hardware
    return [
        Row(
            planned=planned,
            record=None,
            sweep="",
            hardware="",
            device_name=here.device_name,
            torch=here.torch,
            card=plan.cards.get(planned.cell.axes["model"]),
        )
        for planned in plan.cells
    ]


def _folded(frame: pd.DataFrame) -> pd.DataFrame:
    """A reason that stood before is named by its code alone."""
    seen: set[str] = set()
    texts = []
    for text in frame["reason"]:
        texts.append(f"{text.partition(':')[0]}: as above" if text and text in seen else text)
        seen.add(text)
    return frame.assign(reason=texts)


def plan_counts(plan: Plan) -> str:
    """`16 run, 20 unsupported, about 25 min on one device after the other`."""
    verdicts = Counter(planned.verdict for planned in plan.cells)
    running = [planned for planned in plan.cells if planned.verdict == "run"]
    expected_s = sum(expected_row_s(planned, plan.hardware.device_type) for planned in running)
    about = f", at most about {max(1, round(expected_s / 60))} min" if running else ""
    return ", ".join(f"{number} {verdict}" for verdict, number in verdicts.most_common()) + about


def plan_shared(plan: Plan) -> list[str]:
    """What all planned cells have in common, and what is left of models that were changed."""
    results = results_table(_plan_rows(plan), (*IDENTIFYING, "model", "workload"))
    return [*shared_sentences(results), *_against_cards(plan)]


def _against_cards(plan: Plan) -> list[str]:
    """`llama2-7b: 0.67 B parameters, 6.74 B on its card`, a line a model that overrides changed."""
    sizes = {
        planned.cell.axes["model"]: arithmetic.num_parameters(planned.cell.config.model)
        for planned in plan.cells
        if planned.cell.axes["model"] in plan.cards
    }
    cards = {name: plan.cards[name]["num_parameters"] for name in sizes}
    return [
        f"{name}: {size / 1e9:.3g} B parameters, {cards[name] / 1e9:.3g} B on its card."
        for name, size in sizes.items()
        if size != cards[name]
    ]


def _verdict_reason(code: str | None, reason: str | None) -> str:
    return f"{code}: {reason}" if code else ""


# --- layout --------------------------------------------------------------------------------------------------------


def aligned(frame: pd.DataFrame, width: int) -> list[str]:
    """Columns side by side, headings in several lines where `width` asks for it; else a `heading value` list a row."""
    if not len(frame):
        return []
    heads, rows = [str(name) for name in frame.columns], _texts(frame)
    cells = [max(len(row[column]) for row in rows) for column in range(len(heads))]
    for headings in (
        [[head] for head in heads],
        [_broken(head, size) for head, size in zip(heads, cells, strict=True)],
    ):
        widths = [max(size, *map(len, heading)) for heading, size in zip(headings, cells, strict=True)]
        if sum(widths) + 2 * (len(widths) - 1) <= width:
            return [_line(texts, widths) for texts in (*_heading_lines(headings), *rows)]
    return [line for row in rows for line in _stacked(heads, row, width)]


def _broken(head: str, size: int) -> list[str]:
    """A heading in lines no longer than `size` or its longest part; breaks are at spaces and before slashes."""
    parts = re.findall(r" ?/?[^ /]+", head)
    limit = max(size, *(len(part.strip()) for part in parts))
    lines = [""]
    for part in parts:
        if len((lines[-1] + part).strip()) <= limit:
            lines[-1] = (lines[-1] + part).strip()
        else:
            lines.append(part.strip())
    return lines


def _heading_lines(headings: Sequence[Sequence[str]]) -> list[list[str]]:
    """Headings of several lines as lines of the table, the last ones side by side."""
    height = max(map(len, headings))
    padded = [[*[""] * (height - len(heading)), *heading] for heading in headings]
    return [list(line) for line in zip(*padded, strict=True)]


def _line(texts: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(text.ljust(size) for text, size in zip(texts, widths, strict=True)).rstrip()


def with_reasons(frame: pd.DataFrame, width: int) -> list[str]:
    """The table without its last column, whose text stands wrapped under each row."""
    if not len(frame):
        return []
    names = [str(name) for name in frame.columns[:-1]]
    ordered = sorted(names, key=lambda name: name not in ("status", "verdict", "works"))
    head, *rows = _one_line_each(frame[ordered], width)
    lines = head.split("\n") if head else []
    for row, reason in zip(rows, frame.iloc[:, -1], strict=True):
        lines += [*row.split("\n"), *_wrapped(single_line(str(reason)), width)]
    return lines


def _one_line_each(frame: pd.DataFrame, width: int) -> list[str]:
    """A heading (empty when stacked) and one string a row, which may hold several lines."""
    lines = aligned(frame, width)
    heads = [str(name) for name in frame.columns]
    height = len(lines) - len(frame)
    if height >= 1 and lines[height - 1].split()[:1] == heads[0].split()[:1]:
        return ["\n".join(lines[:height]), *lines[height:]]
    return ["", *("\n".join(_stacked(heads, row, width)) for row in _texts(frame))]


def _stacked(heads: Sequence[str], row: Sequence[str], width: int) -> list[str]:
    """One row as `first; heading value; heading value; …`, wrapped and indented."""
    known = [(head, text) for head, text in zip(heads, row, strict=True) if text not in ("", formatting.UNKNOWN)]
    text = "; ".join([row[0], *(f"{head} {value}" for head, value in known if head != heads[0])])
    return textwrap.wrap(text, width, subsequent_indent=INDENT, break_on_hyphens=False)


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, initial_indent=INDENT, subsequent_indent=INDENT, break_on_hyphens=False)


def matrix_lines(matrix: Matrix, width: int) -> list[str]:
    """A matrix as an aligned or stacked table."""
    return aligned(matrix.frame.rename_axis(matrix.corner).reset_index(), width)


def _paragraph(text: str, width: int) -> list[str]:
    """Lines of a sentence; a path in it stays in one piece, so that it can be copied."""
    return textwrap.wrap(single_line(text), width, break_on_hyphens=False, break_long_words=False)


def _texts(frame: pd.DataFrame) -> list[list[str]]:
    return [[single_line(str(value)) for value in row] for row in frame.to_numpy().tolist()]


def _pairs(facts: Iterable[tuple[str, str]], width: int) -> list[str]:
    return [
        line for label, text in facts for line in textwrap.wrap(f"{label}: {text}", width, subsequent_indent=INDENT)
    ]


# --- printing ------------------------------------------------------------------------------------------------------


def _width() -> int:
    return max(shutil.get_terminal_size((PIPED_WIDTH, 24)).columns, 40)


def _print_section(title: str, lines: Sequence[str]) -> None:
    if lines:
        _print([title, "─" * len(title), *lines, ""])


def _print_warnings(diagnosis: Diagnosis, width: int) -> None:
    _print(
        line for warning in diagnosis.warnings for line in textwrap.wrap(f"! {warning}", width, subsequent_indent="  ")
    )


def _print(lines: Iterable[str], *, stderr: bool = False) -> None:
    """Lines as they are: coloured by their first word on a terminal, plain elsewhere."""
    console = Console(stderr=stderr, highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console.file.write("".join(f"{line}\n" for line in lines))
        console.file.flush()
        return
    for line in lines:
        first = line.partition(" ")[0]
        console.print(Text(line, style=STYLES.get(first, "")), no_wrap=True, crop=False, overflow="ignore")
