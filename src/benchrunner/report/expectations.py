"""What a sweep expects of its cells (`sweep.expect`), held against their records."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from benchrunner.machine.hardware import Hardware
from benchrunner.plan.expectation import Expectation, Selection, read_expectations
from benchrunner.report import formatting
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
    found = [
        _the_value(selection, expectation.metric, rows, hardware) for selection in (expectation.less, expectation.more)
    ]
    problems = [problem for problem in found if isinstance(problem, str)]
    if problems:
        return Judged(expectation=expectation, answer="not judged", ratio=None, explanation="; ".join(problems))
    (slug, less), (other, more) = (value for value in found if not isinstance(value, str))
    ratio = less / more if more else math.inf
    said = [f"{name} {_said(expectation.metric, value)}" for name, value in ((slug, less), (other, more))]
    explanation = f"{said[0]} against {said[1]}: ratio {ratio:.3f}"
    return Judged(expectation=expectation, answer=_answer(ratio, expectation.by), ratio=ratio, explanation=explanation)


def _said(metric: str, value: float) -> str:
    """The value in the unit that tables have for its metric."""
    if metric.endswith("_bytes"):
        return f"{formatting.gib(value)} GiB"
    return f"{formatting.significant(value * 1e3)} ms" if metric.endswith("_s") else formatting.significant(value)


def _answer(ratio: float, by: float) -> Answer:
    if ratio < 1:
        return "holds"
    return "violated" if ratio > 1 + by else "within tolerance"


def _the_value(selection: Selection, metric: str, rows: Sequence[Row], hardware: Hardware) -> tuple[str, float] | str:
    """Slug and metric of the one row that is selected, or why there is none."""
    selected = [row for row in rows if selection.has(row.planned.cell, hardware)]
    if len(selected) != 1:
        return "no cell of this sweep is meant" if not selected else f"{len(selected)} cells are meant, not one"
    row, value = selected[0], selected[0].metrics.get(metric)
    if isinstance(value, (int, float)):
        return row.planned.cell.slug, float(value)
    why = row.reason_code if row.status != "ok" else f"it has no {metric}"
    return f"{row.planned.cell.slug}: {why}"
