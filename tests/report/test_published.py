"""Published tables in their own layout: every line has its cell, and every field says where its text is from."""

from dataclasses import replace
from functools import cache

import pytest

from benchrunner.config.hydra_app import expand
from benchrunner.core.errors import ConfigError
from benchrunner.core.paths import config_dir
from benchrunner.plan.planner import make_plan
from benchrunner.plan.rules import load_rules
from benchrunner.plan.search import probe_of
from benchrunner.report.expectations import judge_expectations
from benchrunner.report.published import CLAIM, deviations, layout_names, load_layout, published_tables
from samples import H200, make_record, make_row

LAYOUTS = layout_names()


@cache
def planned(name):
    """The cells of the sweep that fills a layout, on a machine that has everything."""
    return make_plan(expand([f"+sweeps={name}"], multirun=False), H200, load_rules(config_dir() / "compat.yaml")).cells


def rows_of(name, records=None):
    records = records or {}
    return [
        make_row(one.cell, records.get(one.cell.cell_id), H200, verdict=one.verdict, code=one.reason_code,
                 reason=one.reason)
        for one in planned(name)
    ]  # fmt: skip


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_line_means_one_cell_of_its_sweep_and_no_cell_is_left_out(name):
    meant = set()
    for table in load_layout(name).tables:
        claims = all(column.quantity == CLAIM for column in table.columns)
        for line in table.lines:
            cells = [one.cell.cell_id for one in planned(name) if line.cells.has(one.cell, H200)]
            assert len(cells) == 1 or (claims and cells), (table.title, line.labels, len(cells))
            meant |= set(cells)
    assert meant == {one.cell.cell_id for one in planned(name) if not one.cell.search}


def test_what_a_search_tried_has_lines_of_its_own_behind_those_of_the_original():
    search = next(one.cell for one in planned("mingpt-fsdp") if one.cell.search == "max")
    tried = {size: probe_of(search, size, ()) for size in (13, 8, 11)}
    rows = rows_of("mingpt-fsdp", {tried[8].cell_id: make_record(tried[8], "oom", "oom.device", "full")})
    more = [make_row(tried[13], make_record(tried[13], "oom", "oom.device", "full"), H200),
            make_row(tried[11], make_record(tried[11]), H200)]  # fmt: skip
    added = [replace(row, planned=replace(row.planned, probe_of=search.slug)) for row in more]
    baseline, checkpointed, *_ = published_tables(load_layout("mingpt-fsdp"), [*rows, *added], H200)
    assert baseline.frame["batch size"].tolist() == ["1", "2", "4", "7", "8", "9", "11", "13"]
    assert "OOM" in baseline.frame.iloc[-1].tolist() and checkpointed.frame["batch size"].iloc[-1] == "64"


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_expectation_means_one_cell_on_either_side(name):
    for judged in judge_expectations(rows_of(name), H200):
        assert "are meant" not in judged.explanation and "is meant" not in judged.explanation, judged


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_sweep_says_how_it_differs_from_the_original(name):
    assert len(deviations(name)) > 40 and "#" not in deviations(name)


def test_a_number_stands_between_the_published_one_and_their_ratio():
    cell = next(one.cell for one in planned("litgpt-forward") if one.cell.axes["compile"] == "eager")
    ranks = [{"rank": 0, "state": "done", "phase": "teardown", "phases_s": {}, "step_times_s": [0.8, 0.74, 0.9]}]
    record = make_record(cell, metrics={"run_peak_memory_allocated_bytes": 17_400_000_000}, ranks=ranks)
    (table,) = published_tables(load_layout("litgpt-forward"), rows_of("litgpt-forward", {cell.cell_id: record}), H200)
    eager = table.frame.set_index("compiler").loc["eager"].tolist()
    assert eager == ["0.740", "1.48", "0.50", "17.4", "17.4", "1.00"]
    inductor = table.frame.set_index("compiler").loc["inductor"].tolist()
    assert inductor[:3] == ["not run", "1.18", "-"]
    assert any("inductor" in note and "fill it by: bench" in note for note in table.notes)
    assert not any(note.startswith("eager") for note in table.notes)


@pytest.mark.parametrize(
    ("status", "code", "text"), [("oom", "oom.device", "OOM"), ("unsupported", "runtime.x", "N/A"),
                                 ("failed", "failed.exception", "failed")]
)  # fmt: skip
def test_what_did_not_work_has_the_originals_word_and_a_reason_below(status, code, text):
    cell = planned("litgpt-forward")[0].cell
    rows = rows_of("litgpt-forward", {cell.cell_id: make_record(cell, status, code, "because")})
    (table,) = published_tables(load_layout("litgpt-forward"), rows, H200)
    assert table.frame.iloc[0].tolist()[1:3] == [text, "1.18"]
    assert f"inductor: {code}: because" in table.notes


def test_a_claim_stands_beside_the_rule_and_what_was_seen():
    cells = [one.cell for one in planned("llm-train-bench") if one.cell.axes["precision"] == "fp8"]
    records = {cell.cell_id: make_record(cell) for cell in cells}
    tables = published_tables(load_layout("llm-train-bench"), rows_of("llm-train-bench", records), H200)
    pairs = next(table for table in tables if "FSDP" in table.title)
    line = pairs.frame.set_index("pair").loc["TE fp8 × torch.compile"].tolist()
    assert line == ["X", "-", "✓ 1/1"]


def test_an_unknown_layout_is_one_line():
    with pytest.raises(ConfigError, match="did you mean litgpt-train"):
        load_layout("litgpt-trian")
