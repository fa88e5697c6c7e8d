"""What a sweep expects of its cells (`sweep.expect`), held against their records."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from benchrunner.machine.hardware import Hardware
from benchrunner.plan.expectation import Expectation, Selection, read_expectations
from benchrunner.report.formatting import significant
from benchrunner.report.results import Row

Answer = Literal["holds", "within tolerance", "violated", "not judged"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """An expectation and what the records say of it."""

    expectation: Expectation
    answer: Answer
    ratio: float | None
    """The metric of the cell that should have less ÷ that of the other; None where not judged."""
    explanation: str
    """In a sentence: the two cells and their numbers, or why there is nothing to compare."""


def judge_expectations(rows: Sequence[Row], hardware: Hardware) -> list[Judged]:
    """Every expectation of the sweep that these rows belong to."""
    entries = rows[0].planned.cell.config.sweep.expect if rows else []
    return [_judge(expectation, rows, hardware) for expectation in read_expectations(entries)]


def expectations_table(judged: Sequence[Judged]) -> pd.DataFrame:
    """One line an expectation, every field a text."""
    return pd.DataFrame(
        [
            (one.expectation.name, one.answer, one.expectation.metric, one.explanation, one.expectation.because)
            for one in judged
        ],
        columns=["expected", "answer", "metric", "seen", "because"],
    )


def _judge(expectation: Expectation, rows: Sequence[Row], hardware: Hardware) -> Judged:
    found = [_the_cell(selection, rows, hardware) for selection in (expectation.less, expectation.more)]
    problems = [row for row in found if isinstance(row, str)]
    values = [_value(row, expectation.metric) for row in found if not isinstance(row, str)]
    problems += [value for value in values if isinstance(value, str)]
    if problems:
        return Judged(expectation=expectation, answer="not judged", ratio=None, explanation="; ".join(problems))
    less, more = (float(value) for value in values)
    ratio = less / more if more else float("inf")
    texts = [f"{row.planned.cell.slug} {significant(value)}" for row, value in zip(found, (less, more), strict=True)
             if not isinstance(row, str)]  # fmt: skip
    explanation = f"{texts[0]} against {texts[1]}: ratio {ratio:.3f}"
    return Judged(expectation=expectation, answer=_answer(ratio, expectation.by), ratio=ratio, explanation=explanation)


def _answer(ratio: float, by: float) -> Answer:
    if ratio < 1:
        return "holds"
    return "violated" if ratio > 1 + by else "within tolerance"


def _the_cell(selection: Selection, rows: Sequence[Row], hardware: Hardware) -> Row | str:
    """The one row that is selected, or why there is not one."""
    selected = [row for row in rows if selection.has(row.planned.cell, hardware)]
    if len(selected) == 1:
        return selected[0]
    return "no cell of this sweep is meant" if not selected else f"{len(selected)} cells are meant, not one"


def _value(row: Row, metric: str) -> float | str:
    value = row.metrics.get(metric)
    if isinstance(value, (int, float)):
        return value
    why = row.reason_code if row.status != "ok" else f"it has no {metric}"
    return f"{row.planned.cell.slug}: {why}"
