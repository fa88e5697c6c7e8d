"""Results and compatibility tables as data."""

import io
from dataclasses import replace

import pandas as pd
import pytest

from benchrunner.report import csv_file, formatting, markdown
from benchrunner.report.columns import COLUMNS
from benchrunner.report.compatibility import COLUMNS as PAIR_COLUMNS
from benchrunner.report.compatibility import (
    KINDS,
    MARKS,
    Pair,
    answer_of,
    compatibility_table,
    count_pairs,
    feature_matrix,
    kind_of,
    pair_matrices,
)
from benchrunner.report.content import make_tables
from benchrunner.report.results import reasons_table, results_table, varied_settings
from benchrunner.report.row import NO_RECORD
from benchrunner.report.shared_settings import constant_text, shared_settings, varying
from samples import H200, make_cell, make_record, make_row, make_rows

FROZEN = (
    "cell_id slug status reason_code reason flags model workload strategy precision compile activation_checkpointing "
    "engine micro_batch_size global_batch_size seq_len world_size step_time_median_s step_time_p10_s step_time_p90_s "
    "tokens_per_second_per_device model_flops_per_second_per_device mfu peak_memory_allocated_bytes "
    "peak_memory_reserved_bytes num_alloc_retries compile_time_s num_parameters num_trainable_parameters "
    "optimizer settings devices nodes accumulation_steps hardware device_name torch sweep step_time_min_s "
    "step_time_rank_skew samples_per_second hardware_flops_per_second_per_device run_peak_memory_allocated_bytes "
    "predicted_peak_memory_bytes first_step_s num_graphs num_graph_breaks num_recompiles energy_j_per_step "
    "gpu_utilization_mean gpu_utilization_sd sm_clock_mhz_mean first_loss final_loss attention time_to_first_token_s "
    "time_per_output_token_s prefill_tokens_per_second decode_tokens_per_second bandwidth_utilization attempt wall_s "
    "config_digest command parity_gradient_error parity_cosine parity_curve_error predicted_by "
    "predicted_step_time_s memory_error step_time_error checks num_checks_decided num_checks phase_start_s "
    "phase_build_s "
    "phase_compile_s phase_warmup_s phase_measure_s phase_check_s phase_teardown_s started_at log_folder commit "
    "model_label parity_tolerance is_waiting search probe_of left_out "
    "steps_peak_memory_allocated_bytes"
)
"""Other programs read these: a new column is appended, a renamed one raises the schema version."""


def test_the_columns_are_frozen():
    assert list(COLUMNS) == FROZEN.split()


def test_an_abstention_is_shown_and_is_no_pass():
    cell = make_cell()
    checks = {"shape": {"ok": True}, "work": {"ok": None, "note": "nothing was profiled"}, "trains": {"ok": False}}
    results = results_table([make_row(cell, make_record(cell, checks=checks)), make_row(make_cell(strategy="ddp"))])
    assert results["checks"].tolist() == ["2/3", "none"]
    assert results["num_checks_decided"].tolist() == [2, pd.NA] and results["num_checks"].tolist() == [3, pd.NA]
    assert formatting.measured_table(results)["checks"].tolist() == ["2/3"]


def test_one_row_a_planned_cell_whatever_became_of_it():
    results = results_table(make_rows())
    assert results["status"].tolist() == ["ok", "oom", "unsupported", "unsupported", "skipped", "failed", "ok"]
    assert results["reason_code"].tolist()[:5] == [
        "none",
        "oom.device",
        "runtime.dtype",
        "rule.nf4_train",
        NO_RECORD,
    ]
    assert results["num_parameters"].notna().all() and results["num_trainable_parameters"].notna().all()


def test_no_text_stands_among_numbers_and_no_field_is_blank():
    text = csv_file.to_csv(results_table(make_rows()))
    read = pd.read_csv(io.StringIO(text), keep_default_na=False)
    assert not (read == "").any().any()
    numbers = pd.read_csv(io.StringIO(text))
    for name, (kind, _) in COLUMNS.items():
        assert kind == "text" or pd.api.types.is_numeric_dtype(numbers[name]), name


def test_integers_stay_integers_beside_missing_ones():
    lines = csv_file.to_csv(results_table(make_rows())[["peak_memory_allocated_bytes"]]).splitlines()
    assert lines[1:3] == ["734003200", "NA"]


@pytest.mark.parametrize(
    "record",
    [
        make_record(make_cell(), "invalid", "validity.sharded", "parameters are whole on every rank"),
        make_record(make_cell(), fault="no_reduce"),
    ],
    ids=["invalid", "planted fault"],
)
def test_numbers_that_are_no_measurement_are_not_printed(record):
    results = results_table([make_row(make_cell(), record)])
    assert results["step_time_median_s"].isna().all() and results["peak_memory_allocated_bytes"].isna().all()


def test_the_reason_of_missing_numbers_is_the_planted_fault_and_no_missing_counter():
    notes = make_tables("t", [make_row(make_cell(), make_record(make_cell(), fault="no_reduce"))], [], []).notes
    assert len(notes) == 1 and notes[0].startswith("1 cell that is ok had a planted fault")


def test_settings_that_vary_are_columns_of_their_own():
    rows = [make_row(make_cell(leaves=leaves)) for leaves in ({"compile.mode": "default", "seed": 7}, {"seed": 7})]
    results = make_tables("t", rows, [], []).results
    assert results["config.compile.mode"].tolist() == ["default", "null"] and "config.seed" not in results


def test_a_choice_that_is_no_axis_of_its_own_is_shown_by_its_name():
    cells = [make_cell(workload=name) for name in ("train", "lora")]
    rows = [make_row(replace(cell, overrides={"workload": cell.axes["workload"]})) for cell in cells]
    assert varied_settings(rows)["config.workload"].tolist() == ["train", "lora"]


def test_a_setting_of_the_hardware_is_shown_as_overrides_read_it():
    rows = []
    for flops in (1e12, 2e12):
        cell = make_cell()
        hardware = replace(cell.config.hardware, peak_flops={"bf16": flops})
        config = replace(cell.config, hardware=hardware)
        rows.append(make_row(replace(cell, config=config, overrides={"hardware.peak_flops.bf16": flops})))
    found = varied_settings(rows)["config.hardware.peak_flops.bf16"]
    assert [float(text) for text in found] == [1e12, 2e12]


def test_reasons_are_counted_in_order_of_appearance_with_the_first_sentence():
    found = [("oom", "oom.device", "one"), ("ok", None, None), ("failed", "failed.exception", "two"),
             ("oom", "oom.device", "three")]  # fmt: skip
    rows = [make_row(make_cell(), make_record(make_cell(), *why)) for why in found]
    assert reasons_table(results_table(rows)).to_dict("records") == [
        {"status": "oom", "reason_code": "oom.device", "num_cells": 2, "reason": "one"},
        {"status": "failed", "reason_code": "failed.exception", "num_cells": 1, "reason": "two"},
    ]


def test_parameters_that_were_counted_stand_before_those_of_arithmetic():
    cell = make_cell()
    results = results_table([make_row(cell, make_record(cell, num_parameters=11, num_trainable_parameters=7))])
    assert (results["num_parameters"][0], results["num_trainable_parameters"][0]) == (11, 7)


def test_where_a_cell_was_measured():
    cell = make_cell()
    record = make_record(cell, attempt=2, phases_s={"build": 1.5}, environment={"git": {"commit": "abc"}})
    results = results_table([make_row(cell, record), make_row(cell)])
    assert results["log_folder"].tolist() == [f"cells/{cell.slug}/attempt-2", "none"]
    assert results["phase_build_s"][0] == 1.5 and results["phase_check_s"].isna().all()
    assert results["commit"].tolist() == ["abc", "unknown"]


def test_a_planted_fault_shows():
    row = make_row(make_cell(), make_record(make_cell(), fault="no_reduce"), flags=["memory_tight"])
    assert row.flags == ["memory_tight", "fault:no_reduce"]


def test_a_nan_never_becomes_a_number():
    record = make_record(make_cell(), metrics={"step_time_median_s": float("nan"), "mfu": "OOM"})
    results = results_table([make_row(make_cell(), record)])
    assert results["step_time_median_s"].isna().all() and results["mfu"].isna().all()


def test_settings_paste_back():
    row = make_row(make_cell(leaves={"seq_len": 64, "compile.mode": None}))
    assert results_table([row])["settings"][0] == "seq_len=64 compile.mode=null"


# --- compatibility -------------------------------------------------------------------------------------------------


def test_ruled_out_and_refused_are_told_apart():
    kinds = [kind_of(row) for row in make_rows()]
    assert kinds == ["ok", "oom", "refused", "ruled", "not_run", "failed", "ok"]
    missing = make_record(make_cell(), "unsupported", "missing.torchao", "no torchao", attempt=2)
    assert kind_of(make_row(make_cell(), missing)) == "refused"
    assert kind_of(make_row(make_cell(), make_record(make_cell(), "unsupported", "rule.x", "r", attempt=0))) == "ruled"


def pair(*kinds):
    made = Pair()
    made.kinds.update(kinds)
    return made


@pytest.mark.parametrize(
    ("kinds", "mark", "text"),
    [
        ([], "not_in_sweep", "– not in sweep"),
        (["not_run"], "not_run", "– not run"),
        (["ok", "ok"], "works", "✓ 2/2"),
        (["ok", "not_run"], "works", "✓ 1 · – not run 1"),
        (["ruled"], "ruled_out", "✗ rule 1/1"),
        (["refused"], "refused", "✗ refused 1/1"),
        (["oom", "oom", "not_run"], "oom", "OOM 2 · – not run 1"),
        (["ok", "ruled", "not_run"], "mixed", "✓ 1 · ✗ rule 1 · – not run 1"),
        (["failed", "timeout", "invalid"], "mixed", "timeout 1 · failed 1 · invalid 1"),
    ],
)
def test_marks(kinds, mark, text):
    assert (pair(*kinds).mark, pair(*kinds).text) == (mark, text)


def test_a_rule_that_is_proved_wrong_shows():
    cell = make_cell(precision="fp8")
    rows = [make_row(cell, make_record(cell), flags=["probe:fp8_capability"])]
    long = compatibility_table(count_pairs(rows))
    assert (long["num_contradicted"] == 1).all()
    assert feature_matrix(rows, count_pairs(rows)).frame.iloc[0, 0] == "✓ 1/1 (against a rule: 1)"
    notes = make_tables("t", rows, [], []).notes
    assert any("although a rule calls it impossible (probe:fp8_capability)" in note for note in notes)


def test_the_long_table_counts_every_cell_once_a_pair_of_axes():
    rows = make_rows()
    long = compatibility_table(count_pairs(rows))
    assert tuple(long.columns) == PAIR_COLUMNS
    for _, part in long.groupby(["axis_a", "axis_b"]):
        assert part["num_cells"].sum() == len(rows)
    assert (long[[f"num_{kind}" for kind in KINDS]].sum(axis=1) == long["num_cells"]).all()
    assert set(long["mark"]) <= set(MARKS)
    assert not (long == "").any().any() and long.notna().all().all()


def parity_row(ok, status="ok", **axes):
    cell = make_cell(workload="parity", **axes)
    checks = {"parity": {"ok": ok, "expected": "e", "observed": "o"}}
    return make_row(cell, make_record(cell, status, checks=checks))


def test_running_and_computing_the_right_thing_stand_apart():
    cell = make_cell(precision="fp8")
    rows = [make_row(cell, make_record(cell)), parity_row(True), parity_row(False, "invalid", precision="fp8")]
    long = compatibility_table(count_pairs(rows)).set_index(["value_a", "value_b"])
    assert long.loc[("single", "fp8"), ["num_cells", "mark", "num_parity", "num_wrong", "computes"]].tolist() == [
        1, "works", 1, 1, "wrong",
    ]  # fmt: skip
    assert long.loc[("single", "bf16"), ["num_cells", "num_parity", "num_right", "computes"]].tolist() == [
        0, 1, 1, "right",
    ]  # fmt: skip
    texts = feature_matrix(rows, count_pairs(rows)).frame["single"]
    assert texts["precision fp8"] == "✓ 1/1; wrong 1/1"
    assert texts["precision bf16"] == "– not in sweep; right 1/1"
    assert texts["compile eager"] == "✓ 1/1; right 1/2, wrong 1/2"


def test_parity_shows_its_errors_and_misses_no_speed():
    cell = make_cell(workload="parity")
    checks = {"parity": {"ok": True, "expected": "at most 0.05"}}
    metrics = {"parity_gradient_error": 0.0187, "parity_cosine": 1 - 1.9e-4, "parity_curve_error": 0.17}
    tables = make_tables("t", [make_row(cell, make_record(cell, metrics=metrics, checks=checks))], [], [])
    (shown,) = formatting.measured_table(tables.results).to_dict("records")
    assert shown == {
        "model": "debug", "gradient error": "0.019", "1 − cosine": "0.00019", "curve error nats": "0.17",
        "checks": "1/1", "tolerance": "at most 0.05", "flags": "none",
    }  # fmt: skip
    assert tables.notes == []


def test_parity_without_an_answer():
    unjudged = count_pairs([parity_row(None)])["strategy", "single", "precision", "bf16"]
    assert (unjudged.computes, unjudged.text) == ("unjudged", "– not in sweep; unjudged 1/1")
    cell = make_cell(workload="parity")
    failed = count_pairs([make_row(cell, make_record(cell, "oom", "oom.device", "r"))])
    assert failed["strategy", "single", "precision", "bf16"].text == "– not in sweep; not compared"
    alone = count_pairs([make_row(make_cell(), make_record(make_cell()))])
    assert alone["strategy", "single", "precision", "bf16"].computes == "not_in_sweep"


def test_pairs_that_no_cell_holds_are_listed():
    long = compatibility_table(count_pairs(make_rows()))
    absent = long[(long["value_a"] == "single") & (long["value_b"] == "nf4")]
    assert absent["mark"].tolist() == ["not_in_sweep"] and absent["reason"].tolist() == ["none"]


def test_the_reason_of_a_pair_is_the_most_frequent_one_of_what_does_not_work():
    """Cells that wait give none."""
    found = [("oom", "oom.device"), ("failed", "failed.exception"), ("failed", "failed.exception"), ("ok", None)]
    cells = [make_cell(leaves={"seed": seed}) for seed in range(6)]
    rows = [make_row(cell, make_record(cell, *why, "r")) for cell, why in zip(cells, found, strict=False)]
    waiting = [make_row(cell) for cell in cells[4:]]
    frame = compatibility_table(count_pairs([*rows, *waiting]))
    assert set(frame["reason"]) == {"failed.exception: r"}
    assert frame["num_not_run"].tolist() == [2] * len(frame)
    assert set(compatibility_table(count_pairs([rows[3], *waiting]))["reason"]) == {"none"}


def test_a_matrix_has_a_mark_for_each_pair_of_values():
    cells = [
        make_cell(precision=precision, compile=name) for precision in ("bf16", "fp32") for name in ("eager", "inductor")
    ]
    rows = [make_row(cell, make_record(cell)) for cell in cells[:2]]
    rows += [make_row(cells[2], make_record(cells[2], "oom", "oom.device", "r")), make_row(cells[3])]
    (matrix,) = pair_matrices(rows, count_pairs(rows))
    assert (matrix.title, matrix.corner) == ("precision × compile", "precision")
    assert matrix.frame.to_dict("index") == {
        "bf16": {"eager": "✓ 1/1", "inductor": "✓ 1/1"}, "fp32": {"eager": "OOM 1/1", "inductor": "– not run"},
    }  # fmt: skip


def test_a_search_speaks_for_its_probes_and_for_no_other_cell():
    probe, other = (make_row(make_cell(leaves={"micro_batch_size": size})) for size in (1, 2))
    probe = replace(probe, planned=replace(probe.planned, probe_of="a search"))
    assert set(compatibility_table(count_pairs([probe, other]))["num_cells"]) == {1}


def test_parity_that_did_not_end_has_no_answer():
    cell = make_cell(workload="parity")
    checks = {"parity": {"ok": True}}
    assert answer_of(make_row(cell, make_record(cell, "oom", "oom.device", "r", checks=checks))) is None
    assert answer_of(make_row(cell)) is None


def test_matrices_leave_out_axes_that_do_not_vary():
    rows = make_rows()
    assert [matrix.title for matrix in pair_matrices(rows, count_pairs(rows))] == ["precision × compile"]
    for alone in ([make_row(make_cell())], [make_row(make_cell(compile=name)) for name in ("eager", "inductor")]):
        assert pair_matrices(alone, count_pairs(alone)) == []


# --- numbers for people --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.0123456, "0.01235"),
        (0.5, "0.5000"),
        (9.99999, "10.00"),
        (12.3456, "12.35"),
        (999.96, "1,000"),
        (10368.1, "10,370"),
        (1234567, "1,235,000"),
        (-3.14159, "-3.142"),
        (1.7976931348623157e308, "–"),
        (float("-inf"), "–"),
    ],
)
def test_significant(value, text):
    assert formatting.significant(value) == text


def test_printed_columns_are_those_that_tell_rows_apart():
    results = results_table(make_rows())
    measured = formatting.measured_table(results)
    assert list(measured.columns)[:2] == ["strategy", "precision"]
    assert "model" not in measured.columns and "MFU %" not in measured.columns
    assert formatting.unknown_metrics(results) == ["MFU %"]
    assert constant_text(results).startswith("model debug, workload train")


def test_nothing_in_common_is_not_said():
    other = {
        "workload": "forward", "strategy": "ddp", "precision": "nf4", "compile": "inductor", "engine": "fabric",
        "activation_checkpointing": "full", "optimizer": "sgd",
    }  # fmt: skip
    rows = [
        make_row(make_cell()),
        make_row(make_cell(leaves={"seq_len": 64, "micro_batch_size": 3}, model="gpt2-125m", **other)),
    ]
    assert constant_text(results_table(rows)) == ""
    assert make_tables("t", rows, [], []).summary == ["2 cells: 2 skipped."]


def test_settings_in_common_are_said_once_and_where_they_are_read():
    """A size that all rows share stands among the sizes; one that varies in a column."""
    rows = [make_row(make_cell(leaves={"seed": 7, "seq_len": 64, "compile.mode": "default"}, compile="inductor"))]
    eager = make_row(make_cell(leaves={"seed": 7, "seq_len": 64}))
    rows.append(replace(eager, planned=replace(eager.planned, left_out=["compile.mode=default"])))
    results = results_table(rows)
    assert shared_settings(results) == ["seed=7", "compile.mode=default (where it is read)"]
    assert "seq len 64" in constant_text(results)
    assert shared_settings(results.drop(columns="left_out")) == ["seed=7"]
    longer = make_row(make_cell(leaves={"seed": 7, "seq_len": 128}))
    assert shared_settings(results_table([eager, longer])) == ["seed=7"]


def test_a_number_that_some_rows_have_not_tells_rows_apart():
    assert varying(pd.DataFrame({"a": [1, pd.NA], "b": [1, 1]}), ["a", "b"]) == ["a"]


def test_rows_of_different_machines_are_told_apart():
    rows = [make_row(make_cell(), make_record(make_cell())), make_row(make_cell(), hardware=H200)]
    assert list(formatting.labels(results_table(rows)).columns) == ["hardware", "torch"]


def test_settings_leave_out_what_columns_show_and_what_is_the_same_unsaid():
    """Devices are the world where there is one node; where there are several they are not."""
    cells = [
        make_cell(8, strategy="ddp", leaves={"devices": 2, "seed": 7}),
        make_cell(8, strategy="ddp", leaves={"devices": 4, "seq_len": 128, "micro_batch_size": 1, "seed": 8}),
    ]
    results = results_table([make_row(cell) for cell in cells])
    assert formatting.labels(results)["settings"].tolist() == ["seed=7", "seed=8"]
    for several in (results.assign(nodes=[1, 2]), results.drop(columns="nodes")):
        assert formatting.labels(several)["settings"].tolist() == ["devices=2 seed=7", "devices=4 seed=8"]


def test_predictions_alone_are_shown_with_what_they_say():
    cells = [make_cell(strategy=name, leaves={"predict.name": "only"}) for name in ("single", "ddp", "fsdp_stage3")]
    rows = [make_row(cell, verdict="skipped", code="skipped.predict_only", reason="r") for cell in cells]
    for row, seconds in zip(rows[:2], (0.0123456, 2.0), strict=True):
        predicted = {"method": "analytic", "peak_memory_bytes": 3 * 2**29, "step_time_s": seconds}
        object.__setattr__(row.planned, "predicted", predicted)
    shown = formatting.predicted_table(results_table(rows))
    assert shown["peak GiB"].tolist() == ["1.50", "1.50", "–"]
    assert shown["step ms"].tolist() == ["12.3", "2,000", "–"]
    assert shown["predicted by"].tolist() == ["analytic", "analytic", "none"]


def test_a_global_batch_that_follows_from_the_micro_batch_is_no_column():
    one, two, more = (make_row(make_cell(leaves=leaves)) for leaves in (
        {"micro_batch_size": 1}, {"micro_batch_size": 2}, {"micro_batch_size": 1, "global_batch_size": 4},
    ))  # fmt: skip
    assert list(formatting.labels(results_table([one, two])).columns) == ["micro-batch"]
    assert "global batch" in formatting.labels(results_table([one, more])).columns


def test_a_number_that_one_row_has_not_is_a_dash():
    cells = [make_cell(), make_cell(strategy="ddp")]
    rows = [
        make_row(cell, make_record(cell, metrics={"mfu": mfu, "step_time_median_s": 0.1}))
        for cell, mfu in zip(cells, (0.4, None), strict=True)
    ]
    assert formatting.measured_table(results_table(rows))["MFU %"].tolist() == ["40.0", "–"]
    assert formatting.as_text(pd.DataFrame({"num_cells": [1, None]}, dtype="Int64")).to_dict("list") == {
        "cells": ["1", "–"]
    }


def test_parity_without_a_tolerance_says_so_and_what_is_no_parity_has_none():
    parity = make_cell(workload="parity")
    metrics = {"parity_gradient_error": 0.01}
    rows = [make_row(parity, make_record(parity, metrics=metrics)), make_row(make_cell(), make_record(make_cell()))]
    shown = formatting.measured_table(results_table(rows))
    assert shown["tolerance"].tolist() == ["none measured yet", "–"]


def test_a_single_cell_has_a_label():
    assert list(formatting.labels(results_table([make_row(make_cell())])).columns) == ["model"]


def test_settings_show_only_what_tells_rows_apart():
    rows = [make_row(make_cell(leaves={"seq_len": length, "seed": 7})) for length in (32, 64)]
    assert list(formatting.labels(results_table(rows)).columns) == ["seq len"]
    rows.append(make_row(make_cell(leaves={"seq_len": 64, "seed": 7, "compile.mode": "default"})))
    frame = formatting.labels(results_table(rows))
    assert frame["settings"].tolist() == ["none", "none", "compile.mode=default"]


def test_workloads_are_features_where_there_are_several_of_them():
    cells = [make_cell(workload=name, precision="bf16") for name in ("lora", "generate")]
    rows = [make_row(cell, make_record(cell)) for cell in cells] + [parity_row(True)]
    pairs = count_pairs(rows)
    texts = feature_matrix(rows, pairs).frame["single"]
    assert texts["workload lora"] == texts["workload generate"] == "✓ 1/1"
    assert "workload parity" not in texts and texts["precision bf16"] == "✓ 2/2; right 1/1"
    assert not any("workload" in key for key in count_pairs(rows[:1]))


def test_markdown_groups_orders_and_bolds_the_best_of_a_group():
    cells = [make_cell(), make_cell(model="gpt2-125m"), make_cell(strategy="ddp"), make_cell(compile="inductor")]
    speeds = (100.0, 7.0, 300.0, 200.0)
    rows = [
        make_row(cell, make_record(cell, metrics={"tokens_per_second_per_device": speed}))
        for cell, speed in zip(cells, speeds, strict=True)
    ]
    text = markdown.results_markdown(make_tables("t", rows, [], []))
    lines = [line.split("|") for line in text.splitlines() if line.startswith("|")][2:]
    assert [line[1].strip() for line in lines] == ["debug", "debug", "debug", "gpt2-125m"]
    assert [
        text in "".join(line) for text, line in zip(("**300.0**", "200.0", "100.0", "7.000"), lines, strict=True)
    ] == [True] * 4
    assert text.count("**") == 2, "a group of one has no best"


def test_a_search_is_told_apart_from_its_probes_and_has_the_sizes_that_it_found():
    search, probe = make_cell(leaves={"micro_batch_size": "max"}), make_cell(leaves={"micro_batch_size": 12})
    tried = {"micro_batch_size": 12, "cell": probe.slug, "status": "ok", "num_alloc_retries": 0,
             "tokens_per_second_per_device": 1.0}  # fmt: skip
    found = {"search": {"kind": "max", "micro_batch_size": 12, "probes": [tried]}}
    record = make_record(search, reason="max = 12 (probes: 12 ok)", attempt=0, metrics={}, evidence=found)
    waiting = results_table([make_row(search), make_row(make_cell(leaves={"micro_batch_size": "best"}))])
    assert waiting["micro_batch_size"].isna().all()
    assert formatting.labels(waiting).to_dict("list") == {"micro-batch": ["max", "best"]}
    results = results_table([make_row(search, record), make_row(probe, make_record(probe))])
    assert results["micro_batch_size"].tolist() == [12, 12] and results["search"].tolist() == ["max", "none"]
    assert "batch" not in constant_text(results) and "seq len 128" in constant_text(results)
    assert formatting.labels(results)["micro-batch"].tolist() == ["max = 12", "12"]
    assert len(formatting.measured_table(results)) == 1
    assert formatting.searches_table(results)["found"].tolist() == ["max = 12 (probes: 12 ok)"]
