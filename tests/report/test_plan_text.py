"""A plan as people read it: columns where there is something to say, and what stands above the table."""

from dataclasses import replace

import pandas as pd
import pytest

from benchrunner.plan.costs import expected_row_s
from benchrunner.plan.plan import Plan
from benchrunner.report import plan_text
from samples import CPU, H200, make_cell, plan_cell

KNOWN = {
    "method": "analytic", "bound": "estimate", "peak_memory_bytes": 3 * 2**30, "margin": 0.04,
    "fit": "fits_with_retries", "step_time_s": 0.4994, "step_time_low_s": 0.2494, "step_time_high_s": 0.9994,
    "tokens_per_second_per_device": 1234.0, "mfu": 0.412, "limited_by": "host",
}  # fmt: skip


def plan_of(*cells, hardware=CPU, **how):
    made = "2026-11-21T03:00:00+00:00"
    return Plan(cells=list(cells), hardware=hardware, sweep_name="cli", arguments=[], created_at=made, **how)


def planned(predicted=None, verdict="run", code=None, reason=None, flags=(), left_out=(), **given):
    one = plan_cell(make_cell(**given), verdict, code, reason, flags)
    return replace(one, predicted=predicted, left_out=left_out)


def table(*cells):
    return plan_text.plan_table(plan_of(*cells))


def test_a_plan_says_verdict_labels_predictions_and_reason():
    frame = table(
        planned(KNOWN, flags=["a", "b"]), planned(None, "unsupported", "rule.x", "it cannot", compile="thunder")
    )
    assert frame.to_dict("list") == {
        "verdict": ["run", "unsupported"],
        "compile": ["eager", "thunder"],
        "peak GiB": ["3.00 ± 4%", "–"],
        "fit": ["fits with retries", "none"],
        "step ms": ["499 (249–999)", "–"],
        "tokens/s/device": ["1,230", "–"],
        "MFU %": ["41.2", "–"],
        "limited by": ["host", "none"],
        "predicted by": ["analytic", "none"],
        "flags": ["a b", "none"],
        "reason": ["", "rule.x: it cannot"],
    }


def test_a_column_that_says_nothing_is_left_out():
    frame = table(planned(), planned(compile="inductor"))
    assert list(frame) == ["verdict", "compile", "reason"]
    same = table(planned(KNOWN), planned(KNOWN, compile="inductor"))
    assert "predicted by" not in same, "as everything is"
    assert list(table(planned({**KNOWN, "method": "dry_run"}))["predicted by"]) == ["dry_run"]


def test_a_search_says_where_it_begins():
    frame = table(planned({**KNOWN, "micro_batch_size": 12}, leaves={"micro_batch_size": "max"}), planned(KNOWN))
    assert list(frame["first probe"]) == ["12", "none"]


@pytest.mark.parametrize(
    ("predicted", "text"),
    [
        ({}, "–"),
        ({"peak_memory_bytes": 2**30, "bound": "lower", "margin": 0.1}, "≥ 1.00"),
        ({"peak_memory_bytes": 2**30, "bound": "estimate"}, "1.00"),
        ({"peak_memory_bytes": 2**30, "bound": "estimate", "margin": 0.25}, "1.00 ± 25%"),
    ],
)
def test_a_peak_has_its_margin_or_is_a_bound(predicted, text):
    assert plan_text.peak_text(predicted) == text


def test_a_step_without_an_interval_stands_alone():
    for bounds in ({"step_time_low_s": 0.1}, {"step_time_high_s": 0.1}, {}):
        assert list(table(planned({"step_time_s": 0.5, **bounds}))["step ms"]) == ["500"]


def test_a_reason_that_stood_before_is_named_by_its_code():
    frame = pd.DataFrame({"reason": ["a: x: z", "", "a: x: z", "a: y", "", "a: x: z"]})
    assert list(plan_text.folded(frame)["reason"]) == [
        "a: x: z", "", "a: as above", "a: y", "", "a: as above",
    ]  # fmt: skip


@pytest.mark.parametrize("hardware", [CPU, H200])
def test_what_runs_is_counted_with_its_time(hardware):
    cells = [planned(leaves={"seed": seed}) for seed in range(3)] + [planned(None, "unsupported", "rule.x", "r")] * 4
    minutes = max(1, round(3 * expected_row_s(cells[0], hardware.device_type) / 60))
    said = plan_text.plan_counts(plan_of(*cells, hardware=hardware))
    assert said == f"4 unsupported, 3 run, at most about {minutes} min"
    assert plan_text.plan_counts(plan_of(*cells[3:])) == "4 unsupported"


@pytest.mark.parametrize(
    ("seconds", "text"), [(1, "1 min"), (89, "1 min"), (91, "2 min"), (119 * 60, "119 min"), (120 * 60, "2 h"),
                          (100 * 3600, "100 h")],
)  # fmt: skip
def test_a_rough_time_is_in_minutes_or_hours(monkeypatch, seconds, text):
    monkeypatch.setattr(plan_text, "expected_row_s", lambda one, device_type: seconds)
    assert plan_text.plan_counts(plan_of(planned())) == f"1 run, at most about {text}"


def test_what_all_cells_have_stands_above_with_notes_of_plan_and_predictions():
    noted = {**KNOWN, "note": "a limit"}
    cells = [planned(noted), planned(noted, compile="inductor"), planned(KNOWN, strategy="ddp")]
    said = plan_text.plan_shared(plan_of(*cells, notes=["of the plan"]))
    assert said[0].startswith("All cells: ") and "model debug" in said[0] and "strategy" not in said[0]
    assert said[-2:] == ["Note: of the plan.", "Predictions of 2 of 3 cells: a limit."]
    assert "debug: 0.263 M parameters." in said


@pytest.mark.parametrize(
    ("card", "own", "said"),
    [
        (None, None, "debug: 0.263 M parameters."),
        (None, 7_000_000_000, "debug: 0.263 M parameters, 7 B on its card."),
        (None, 215_000, "debug: 0.263 M parameters, 0.215 M on its card."),
        (262_720, None, "debug: 0.263 M parameters, as on its card."),
        (100_000_000, 5, "debug: 0.263 M parameters, 0.1 B on its card."),
        (99_000_000, None, "debug: 0.263 M parameters, 99 M on its card."),
    ],
)
def test_a_model_is_held_against_its_card(card, own, said):
    cell = planned(leaves={"model.num_parameters": own} if own else {})
    cards = {"debug": {"num_layers": 4, "num_parameters": card}} if card else {}
    assert said in plan_text.plan_shared(plan_of(cell, cards=cards))
