"""What a sweep expects of its cells, and what its records say of that."""

from dataclasses import replace

import pytest

from benchrunner.core.schema import SweepConfig
from benchrunner.report.expectations import expectations_table, judge_expectations
from samples import CPU, make_cell, make_record, make_row

ENTRY = {
    "name": "compiled is faster", "less": {"compile": "inductor"}, "more": {"compile": "eager"},
    "metric": "step_time_median_s", "because": "fusion",
}  # fmt: skip


def expecting(cell):
    return replace(cell, config=replace(cell.config, sweep=SweepConfig(expect=[ENTRY])))


def rows(compiled_s, eager_s):
    eager, compiled = expecting(make_cell()), expecting(make_cell(compile="inductor"))
    return [
        make_row(cell, make_record(cell, metrics={"step_time_median_s": seconds}))
        for cell, seconds in ((eager, eager_s), (compiled, compiled_s))
    ]


@pytest.mark.parametrize(
    ("compiled_s", "answer"),
    [(0.9, "holds"), (1.0, "within tolerance"), (1.03, "within tolerance"), (1.04, "violated")],
)
def test_the_answer_and_its_tolerance(compiled_s, answer):
    (judged,) = judge_expectations(rows(compiled_s, 1.0), CPU)
    assert judged.answer == answer and judged.ratio == pytest.approx(compiled_s)
    assert f"ratio {compiled_s:.3f}" in judged.explanation


def test_what_cannot_be_judged_says_why():
    both = rows(0.9, 1.0)
    cell = both[1].planned.cell
    both[1] = make_row(cell, make_record(cell, "oom", "oom.device", "no room"))
    (judged,) = judge_expectations(both, CPU)
    assert judged.answer == "not judged" and "oom.device" in judged.explanation and judged.ratio is None


def test_cells_that_are_not_there_or_too_many_are_not_judged():
    (judged,) = judge_expectations(rows(0.9, 1.0)[:1], CPU)
    assert judged.answer == "not judged" and "no cell" in judged.explanation
    twice = expecting(make_cell(compile="inductor", leaves={"seed": 1}))
    (judged,) = judge_expectations([*rows(0.9, 1.0), make_row(twice, make_record(twice))], CPU)
    assert judged.answer == "not judged" and "2 cells" in judged.explanation


def test_the_table_is_text_and_a_sweep_without_expectations_has_none():
    table = expectations_table(judge_expectations(rows(0.9, 1.0), CPU))
    assert table["answer"].tolist() == ["holds"] and all(isinstance(text, str) for text in table.iloc[0])
    cell = make_cell()
    assert judge_expectations([make_row(cell, make_record(cell))], CPU) == []
