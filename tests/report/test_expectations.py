"""What a sweep expects of its cells, and what its records say of that."""

from dataclasses import replace
from pathlib import Path

import pytest

from benchrunner.core.paths import SweepPaths
from benchrunner.core.schema import SweepConfig
from benchrunner.report.cell_details import details_of
from benchrunner.report.cell_text import cell_sections
from benchrunner.report.expectations import expectations_table, expected_of, judge_expectations
from samples import CPU, H200, make_cell, make_record, make_row

ENTRY = {
    "name": "compiled is faster", "less": {"compile": "inductor"}, "more": {"compile": "eager"},
    "metric": "step_time_median_s", "because": "fusion",
}  # fmt: skip


def expecting(cell, entry=ENTRY):
    return replace(cell, config=replace(cell.config, sweep=SweepConfig(expect=[entry])))


def rows(compiled, eager, entry=ENTRY):
    """An eager and a compiled cell with these values of the metric."""
    cells = [expecting(make_cell(compile=name), entry) for name in ("eager", "inductor")]
    return [
        make_row(cell, make_record(cell, metrics={entry["metric"]: value}))
        for cell, value in zip(cells, (eager, compiled), strict=True)
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


def test_the_table_says_what_was_expected_of_which_metric_and_why():
    (line,) = expectations_table(judge_expectations(rows(0.9, 1.0), CPU)).to_dict("records")
    assert line.pop("seen").endswith("ratio 0.900")
    assert line == {
        "expected": "compiled is faster", "answer": "holds", "metric": "step_time_median_s", "because": "fusion",
    }  # fmt: skip
    assert judge_expectations([], CPU) == []


@pytest.mark.parametrize(
    ("metric", "less", "more", "said"),
    [
        ("step_time_median_s", 0.5, 1.0, ("500.0 ms", "1,000 ms", "ratio 0.500")),
        ("peak_memory_allocated_bytes", 2**30, 2**31, ("1.00 GiB", "2.00 GiB", "ratio 0.500")),
        ("samples_per_second", 3.0, 4.0, ("3.000 against", "4.000: ratio", "ratio 0.750")),
        ("num_alloc_retries", 3, 0, ("ratio inf",)),
    ],
)
def test_numbers_have_the_units_of_their_metric(metric, less, more, said):
    (judged,) = judge_expectations(rows(less, more, ENTRY | {"metric": metric}), CPU)
    assert all(text in judged.explanation for text in said)
    assert judged.answer == ("violated" if more == 0 else "holds")


def test_a_cell_without_the_metric_says_so():
    both = rows(0.9, 1.0)
    cell = both[1].planned.cell
    both[1] = make_row(cell, make_record(cell, metrics={"step_time_median_s": None}))
    (judged,) = judge_expectations(both, CPU)
    assert judged.explanation == f"{cell.slug}: it has no step_time_median_s"


def test_cells_may_be_told_apart_by_the_hardware():
    """`device_type` is a fact of the machine, not of a cell."""
    here = {"device_type": "cpu"}
    both = rows(0.9, 1.0, ENTRY | {"less": ENTRY["less"] | here, "more": ENTRY["more"] | here})
    assert judge_expectations(both, CPU)[0].answer == "holds"
    assert "no cell of this sweep is meant" in judge_expectations(both, H200)[0].explanation
    (judged,) = judge_expectations(batches((8, 4.0, 0), (9, 3.0, 1), of=here, along="num_devices"), CPU)
    assert judged.answer == "holds"


TURN = {
    "name": "retries cost time", "of": {"strategy": "single"}, "along": "micro_batch_size",
    "begins": "num_alloc_retries", "metric": "samples_per_second", "because": "it waits",
}  # fmt: skip


def batches(*numbers, **changes):
    """(micro-batch, samples a second, retries) → rows."""
    rows = []
    for batch, speed, retries in numbers:
        cell = make_cell(leaves={"micro_batch_size": batch})
        cell = replace(cell, config=replace(cell.config, sweep=SweepConfig(expect=[TURN | changes])))
        metrics = {"samples_per_second": speed, "num_alloc_retries": retries}
        rows.append(make_row(cell, make_record(cell, metrics=metrics)))
    return rows


def test_the_first_cell_with_retries_is_held_against_the_one_before_it():
    (judged,) = judge_expectations(batches((16, 2.0, 7), (1, 1.0, 0), (8, 4.0, 0), (9, 3.0, 1)), CPU)
    assert (judged.answer, judged.ratio) == ("holds", 0.75)
    assert "micro_batch_size-9" in judged.explanation and "micro_batch_size-8" in judged.explanation
    (judged,) = judge_expectations(batches((8, 4.0, 0), (9, 4.2, 1)), CPU)
    assert judged.answer == "violated"


def test_a_search_is_none_of_the_sizes_that_it_tried():
    (judged,) = judge_expectations(batches((8, 4.0, 0), (9, 3.0, 1), ("max", 3.0, 1)), CPU)
    assert judged.answer == "holds" and "micro_batch_size-9" in judged.explanation


@pytest.mark.parametrize(
    ("numbers", "said"),
    [([(1, 1.0, 0), (2, 2.0, 0)], "is zero in all 2 cells"), ([(1, 1.0, 3), (2, 2.0, 0)], "in the first cell already"),
     ([(1, None, 0)], "none of its cells")],
)  # fmt: skip
def test_where_nothing_turns_nothing_is_judged(numbers, said):
    (judged,) = judge_expectations(batches(*numbers), CPU)
    assert judged.answer == "not judged" and said in judged.explanation


def test_the_page_of_either_cell_says_what_is_expected_of_it():
    both = rows(1.5, 1.0)
    said = expected_of(judge_expectations(both, CPU))
    assert list(said) == [row.planned.cell.cell_id for row in reversed(both)]
    (sentence,) = said[both[0].planned.cell.cell_id]
    assert sentence.startswith("violated: compiled is faster (fusion). ") and "ratio 1.500" in sentence
    details = details_of(both[0], "", True, [sentence])
    assert details["expected"] == [sentence]
    assert ("Expected of it", [sentence]) in cell_sections(both[0], both, SweepPaths(Path()), [sentence])
