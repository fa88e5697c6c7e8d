from dataclasses import replace

import pytest

from benchrunner.core import arithmetic
from benchrunner.core.units import GIB
from benchrunner.plan import predict
from samples import CPU, H200, make_cell

FAST = replace(H200, memory_bandwidth_bytes_per_second=4.8e12, interconnect_bytes_per_second=4.5e11)


def test_the_peak_is_an_estimate_above_its_lower_bound():
    cell = make_cell()
    predicted = predict.predict(cell, FAST)
    assert (predicted["method"], predicted["bound"], predicted["fit"]) == ("analytic", "estimate", "fits")
    assert predicted["lower_bound_bytes"] == arithmetic.memory_lower_bound_bytes(cell.config, cell.sizes)
    assert predicted["peak_memory_bytes"] > predicted["lower_bound_bytes"]
    assert predicted["step_time_s"] >= arithmetic.train_flops_per_step(cell.config, cell.sizes) / 989e12


def test_switched_off_it_says_the_lower_bound_alone():
    predicted = predict.predict(make_cell(leaves={"predict.name": "off"}), FAST)
    assert (predicted["method"], predicted["bound"]) == ("off", "lower")
    assert "step_time_s" not in predicted and predicted["peak_memory_bytes"] == predicted["lower_bound_bytes"]


def test_the_formula_of_2023_says_its_limits():
    cell = make_cell(leaves={"predict.formula": "llm-analysis-2023"})
    predicted = predict.predict(cell, FAST)
    assert predicted["method"] == "llm-analysis-2023" and "grouped-query" in predicted["note"]
    assert predicted["step_time_s"] > 0
    generating = predict.predict(make_cell(workload="generate", leaves={"predict.formula": "llm-analysis-2023"}), FAST)
    assert generating["peak_memory_bytes"] > 0 and generating["step_time_s"] > 0
    assert predict.predict(cell, CPU)["step_time_s"] is None


@pytest.mark.parametrize(
    ("axes", "leaves", "said"),
    [
        ({"workload": "lora"}, {}, "not workload=lora"),
        ({"workload": "parity"}, {}, "not workload=parity"),
        ({"optimizer": "sgd"}, {}, "not that of optimizer=sgd"),
        ({}, {"predict.tensor": 64}, "predict.tensor=64 is more than model.num_heads"),
        ({}, {"predict.pipeline": 64}, "predict.pipeline=64 is more than model.num_layers"),
    ],
)
def test_the_formula_of_2023_has_no_answer_where_it_has_no_terms(axes, leaves, said):
    cell = make_cell(**axes, leaves={"predict.formula": "llm-analysis-2023", **leaves})
    assert said in predict.predict(cell, FAST)["refused"]


def test_the_formula_of_2023_has_no_time_where_its_device_has_no_peak():
    cell = make_cell(precision="fp32", leaves={"predict.formula": "llm-analysis-2023"})
    predicted = predict.predict(cell, replace(FAST, name="a100-sxm-80gb"))
    assert predicted["step_time_s"] is None and predicted["peak_memory_bytes"] > 0


def test_tokens_and_utilization_follow_from_the_time():
    cell = make_cell(visible_devices=4, strategy="ddp")
    predicted = predict.predict(cell, FAST)
    assert predicted["tokens_per_second_per_device"] == pytest.approx(128 / predicted["step_time_s"])
    flops = arithmetic.train_flops_per_step(cell.config, cell.sizes) / 4
    assert predicted["mfu"] == pytest.approx(flops / 989e12 / predicted["step_time_s"])
    assert predicted["limited_by"] == "host"  # a model for a CPU is too small for a GPU


@pytest.mark.parametrize(
    ("peak", "reserved", "fit"),
    [(90, 0, "fits"), (90, 120, "fits_with_retries"), (97, 0, "tight"), (104, 0, "tight"), (106, 0, "does_not_fit")],
)
def test_a_margin_lies_on_both_sides_of_the_limit(peak, reserved, fit):
    prediction = {"peak_memory_bytes": peak, "margin": 0.05, "reserved_memory_bytes": reserved}
    assert predict.judge(prediction, 100) == fit
    assert predict.judge(prediction, None) is None


def test_the_allocator_has_what_context_and_nccl_leave():
    calibrated = replace(H200, calibration={"context_bytes": 1.0 * GIB, "nccl_bytes": 2.0 * GIB})
    alone, two = make_cell(), make_cell(visible_devices=2, strategy="ddp")
    assert predict.capacity_bytes(alone, calibrated) == H200.memory_bytes - GIB
    assert predict.capacity_bytes(two, calibrated) == H200.memory_bytes - 3 * GIB
    emulated = make_cell(leaves={"memory_limit_gib": 16.0})
    assert predict.capacity_bytes(emulated, calibrated) == 15 * GIB
    assert predict.capacity_bytes(two, CPU) == int(CPU.memory_bytes // 2 * predict.CPU_SHARE)


def test_a_sample_of_generation_counts_its_new_tokens():
    predicted = predict.predict(make_cell(workload="generate"), FAST)
    assert predicted["tokens_per_second_per_device"] == pytest.approx(200 / predicted["step_time_s"])


def test_what_is_not_modelled_is_said():
    assert "note" not in predict.predict(make_cell(), FAST)
    thunder = make_cell(compile="thunder", leaves={"workload.lengths": "alpaca"})
    note = predict.predict(thunder, FAST)["note"]
    assert note.startswith("not modelled: what thunder keeps") and "a length" in note
    fsdp1 = make_cell(visible_devices=2, strategy="fsdp_stage3", engine="fabric", workload="lora")
    assert "FSDP1" in predict.predict(fsdp1, FAST)["note"] and predict.margin_of(fsdp1) == 0.4
    assert "note" not in predict.predict(make_cell(engine="fabric"), FAST)
