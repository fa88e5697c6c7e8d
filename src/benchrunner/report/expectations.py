"""What a sweep expects of its cells (`sweep.expect`), held against their records."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from benchrunner.machine.hardware import Hardware
from benchrunner.plan.expectation import Expectation, Selection, Turn, not_one, read_expectations
from benchrunner.plan.facts import look_up
from benchrunner.report import formatting
from benchrunner.report.row import Row

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
    cell_ids: tuple[str, ...] = ()
    """The two cells, where they are compared."""

    @property
    def sentence(self) -> str:
        """What the page of either cell says of it."""
        expectation = self.expectation
        return f"{self.answer}: {expectation.name} ({expectation.because}). {self.explanation}"


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


def expected_of(judged: Sequence[Judged]) -> dict[str, list[str]]:
    """Cell → what is expected of it, and what records say of that; of cells that are compared alone."""
    sentences: dict[str, list[str]] = {}
    for one in judged:
        for cell_id in one.cell_ids:
            sentences.setdefault(cell_id, []).append(one.sentence)
    return sentences


def _judge(expectation: Expectation, rows: Sequence[Row], hardware: Hardware) -> Judged:
    found = _the_two(expectation, rows, hardware)
    if isinstance(found, str):
        return Judged(expectation=expectation, answer="not judged", ratio=None, explanation=found)
    (one, less), (other, more) = ((row, row.metrics[expectation.metric]) for row in found)  # type: ignore[literal-required]
    ratio = less / more if more else math.inf
    said = [
        f"{row.planned.cell.slug} {_said(expectation.metric, value)}" for row, value in ((one, less), (other, more))
    ]
    return Judged(
        expectation=expectation,
        answer=_answer(ratio, expectation.by),
        ratio=ratio,
        explanation=f"{said[0]} against {said[1]}: ratio {ratio:.3f}",
        cell_ids=(one.planned.cell.cell_id, other.planned.cell.cell_id),
    )


def _the_two(expectation: Expectation, rows: Sequence[Row], hardware: Hardware) -> tuple[Row, Row] | str:
    """The cell that should have less and the other, both with the metric; or why there is nothing to compare."""
    if expectation.turn is not None:
        return _at_the_turn(expectation, expectation.turn, rows, hardware)
    one, other = (_the_row(side, expectation.metric, rows, hardware) for side in (expectation.less, expectation.more))
    if isinstance(one, str) or isinstance(other, str):
        return "; ".join(problem for problem in (one, other) if isinstance(problem, str))
    return one, other


def _at_the_turn(
    expectation: Expectation, turn: Turn, rows: Sequence[Row], hardware: Hardware
) -> tuple[Row, Row] | str:
    """The first cell with anything of `begins`, and the one before it; what a search tried counts, not the search."""
    meant = [row for row in rows if not row.planned.cell.search and expectation.less.has(row.planned.cell, hardware)]
    chosen = [row for row in meant if _has(row, expectation.metric)]
    ordered = sorted(chosen, key=lambda row: look_up(turn.along, row.planned.cell, hardware))
    place = next((number for number, row in enumerate(ordered) if row.metrics.get(turn.begins)), None)
    if not ordered:
        return "none of its cells has been measured"
    if place is None:
        return f"{turn.begins} is zero in all {len(ordered)} cells that were measured"
    if not place:
        return f"{ordered[0].planned.cell.slug}: {turn.begins} is above zero in the first cell already"
    return ordered[place], ordered[place - 1]


def _said(metric: str, value: float) -> str:
    """The value in the unit that tables have for its metric."""
    if metric.endswith("_bytes"):
        return f"{formatting.gib(value)} GiB"
    return f"{formatting.significant(value * 1e3)} ms" if metric.endswith("_s") else formatting.significant(value)


def _answer(ratio: float, by: float) -> Answer:
    if ratio < 1:
        return "holds"
    return "violated" if ratio > 1 + by else "within tolerance"


def _the_row(selection: Selection, metric: str, rows: Sequence[Row], hardware: Hardware) -> Row | str:
    """The one row that is selected, if it has the metric; or why there is none."""
    selected = [row for row in rows if selection.has(row.planned.cell, hardware)]
    if problem := not_one(len(selected)):
        return problem
    row = selected[0]
    if _has(row, metric):
        return row
    return f"{row.planned.cell.slug}: {row.reason_code if row.status != 'ok' else f'it has no {metric}'}"


def _has(row: Row, metric: str) -> bool:
    return isinstance(row.metrics.get(metric), (int, float))
