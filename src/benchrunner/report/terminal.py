"""What commands print: tables, plans and other answers, in colour on a terminal and as plain text when piped."""

import shutil
import textwrap
from collections.abc import Collection, Iterable, Sequence

import pandas as pd
from rich.console import Console
from rich.text import Text

from benchrunner.core.text import indented_line, single_line
from benchrunner.plan.doctor import Diagnosis
from benchrunner.plan.explain import Explanation
from benchrunner.plan.plan import Plan, PlannedCell
from benchrunner.plan.predict import Prediction
from benchrunner.report import formatting
from benchrunner.report.conclusions import best_cells
from benchrunner.report.content import Tables
from benchrunner.report.expectations import expectations_table
from benchrunner.report.layout import (
    aligned,
    below_labels,
    in_pieces,
    left_out,
    matrix_lines,
    narrowed,
    numbers_by_label,
    pairs,
    paragraph,
    side_by_side,
    unmeasured_lines,
    with_reasons,
)
from benchrunner.report.markdown import LEGEND
from benchrunner.report.plan_text import NUMBERS, folded, peak_text, plan_counts, plan_shared, plan_table

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
MOST_GROUPS = 8
"""Of which the fastest cell is named."""


def print_tables(tables: Tables) -> None:
    """Results and compatibility on stdout, remarks about the files on stderr."""
    width = _width()
    said = (tables.title, *tables.banner, *tables.summary)
    above = [line for text in said for line in paragraph(text, width)]
    _print([*above, ""])
    for line in dict.fromkeys(table.above for table in tables.published):
        _print([*paragraph(line, width), ""])
    for table in tables.published:
        _print_section(table.title, in_pieces(table.frame, table.num_labels, width))
        _print([line for note in table.notes for line in paragraph(f"- {note}", width)] + [""])
    if tables.expectations:
        _print_section("Expected", with_reasons(expectations_table(tables.expectations), width))
    for matrix in tables.matrices:
        _print_section(matrix.title, matrix_lines(matrix, width))
    _print([*textwrap.wrap(LEGEND, width), ""] if tables.matrices else [])
    measured, num_labels = formatting.measured_table(tables.results), len(formatting.labels(tables.results).columns)
    _print_section("Found by search", with_reasons(formatting.searches_table(tables.results), width))
    _print_section("Measured", numbers_by_label(measured, num_labels, width))
    _print_section("Predicted", aligned(formatting.predicted_table(tables.results), width))
    _print_section("Not measured", unmeasured_lines(tables.results, width))
    best = best_cells(tables.results, MOST_GROUPS)
    _print_section("Fastest and smallest", [line for text in best for line in paragraph(text, width)])
    _print((line for note in tables.notes for line in textwrap.wrap(f"note: {single_line(note)}", width)), stderr=True)


def print_plan(plan: Plan, only: Collection[str] = ("run", "unsupported", "skipped")) -> None:
    """Every planned cell, or those of some verdicts: what tells it apart, predicted memory and time, and why not."""
    width = _width()
    frame = plan_table(plan)
    machine, count = plan.hardware, len(plan.cells)
    cells = "1 cell" if count == 1 else f"{count:,} cells"
    head = f"{cells} planned for {machine.num_devices} × {machine.device_name} ({machine.name}): {plan_counts(plan)}"
    _print(paragraph(head, width))
    _print([line for text in plan_shared(plan) for line in paragraph(text, width)])
    _print([""])
    shown, missing = narrowed(frame[frame["verdict"].isin(list(only))].drop(columns="reason"), width)
    reasons = frame["reason"][shown.index]
    table = folded(shown.assign(reason=reasons))
    labels = [name for name in shown.columns if name not in NUMBERS]
    numbers = [name for name in shown.columns if name in NUMBERS]
    lines = None
    if side_by_side(shown, width) is None:
        lines = below_labels(table[[*labels, *numbers, "reason"]], len(labels), width)
    _print([*with_reasons(table, width), *left_out(missing, width)] if lines is None else lines)


def print_explanation(planned: PlannedCell, found: Explanation) -> None:
    """The terms of one cell's prediction: memory at the peak, and a step's seconds by resource."""
    width, predicted = _width(), planned.predicted or {}
    _print([planned.cell.slug, *(line for text in found.remarks for line in paragraph(text, width)), ""])
    memory = [(name, formatting.gib(value)) for name, value in found.memory_bytes.items()]
    memory += [("sum", formatting.gib(sum(found.memory_bytes.values())))]
    memory += [("beside the allocator", formatting.gib(found.outside_bytes))] if found.outside_bytes else []
    reached = f", reached in {found.phase}" if found.phase else ""
    _print_section(f"Peak memory{reached}", _terms(["term", "GiB"], memory, width))
    rows = [
        (name, formatting.number(1e3 * found.ideal_s[name]), formatting.number(found.efficiencies[name]),
         formatting.number(1e3 * seconds))
        for name, seconds in found.step_s.items()
    ]  # fmt: skip
    rows += [("sum", "", "", formatting.number(1e3 * sum(found.step_s.values())))] if rows else []
    heads = ["resource", "ms at data-sheet rate", "share of it reached", "ms"]
    _print_section("Step time", _terms(heads, rows, width))
    parts = [_part(name, value) for name, value in found.parts.items()]
    _print_section("What the formula computes", _terms(["term", "value"], parts, width))
    capacity = formatting.gib(predicted.get("capacity_bytes"))
    fit = str(predicted.get("fit") or "unknown").replace("_", " ")
    said = (
        f"predicted by {predicted.get('method')}: {peak_text(predicted)} GiB of {capacity} GiB{_allocators(predicted)}"
    )
    _print(textwrap.wrap(f"{said}: {fit}", width))
    _print(textwrap.wrap(predicted.get("note", ""), width))


def _allocators(predicted: Prediction) -> str:
    """What a replay of the allocator says beside the peak."""
    if "least_memory_bytes" not in predicted:
        return ""
    least, reserved = (
        formatting.gib(predicted["least_memory_bytes"]),
        formatting.gib(predicted["reserved_memory_bytes"]),
    )
    return f"; the allocator takes {reserved} GiB for it, {least} at least"


def _part(name: str, value: float) -> tuple[str, str]:
    """A term of a formula: `prefill_attention_s` in milliseconds."""
    if name.endswith("_s"):
        return f"{name.removesuffix('_s').replace('_', ' ')} ms", formatting.number(1e3 * value)
    return name.replace("_", " "), formatting.number(value)


def _terms(heads: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[str]:
    return aligned(pd.DataFrame(list(rows), columns=list(heads)), width)


def print_doctor(diagnosis: Diagnosis) -> None:
    """What a machine is and what it can run."""
    width = _width()
    _print(pairs(diagnosis.facts, width))
    for axis, lines in diagnosis.axes.items():
        frame = pd.DataFrame(lines, columns=["works", axis, "reason"], dtype="object")
        _print_section(axis, with_reasons(frame.rename(columns={axis: "value"}), width))
    _print_warnings(diagnosis, width)


def print_sections(sections: Iterable[tuple[str, Sequence[str]]]) -> None:
    """Titles with lines, each line whole: paths and commands are there to be copied."""
    for title, lines in sections:
        _print_section(title, [indented_line(line) for line in lines])


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
    console = Console(stderr=stderr, soft_wrap=True)
    if not console.is_terminal:
        console.file.write("".join(f"{line}\n" for line in lines))
        console.file.flush()
        return
    for line in lines:
        first = line.partition(" ")[0]
        console.print(Text(line, style=STYLES.get(first, "")))
