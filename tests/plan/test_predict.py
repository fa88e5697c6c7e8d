from dataclasses import replace

import pytest

from benchrunner.core import arithmetic
from benchrunner.core.units import GIB
from benchrunner.plan import predict
from benchrunner.plan.memory import peak_memory
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
        ({"activation_checkpointing": "selective"}, {}, "no checkpointing of 1/2 of the blocks"),
        ({}, {"predict.tensor": 64}, "predict.tensor=64 is more than model.num_heads"),
        ({}, {"predict.pipeline": 64}, "predict.pipeline=64 is more than model.num_layers"),
    ],
)
def test_the_formula_of_2023_has_no_answer_where_it_has_no_terms(axes, leaves, said):
    cell = make_cell(**axes, leaves={"predict.formula": "llm-analysis-2023", **leaves})
    predicted = predict.predict(cell, FAST)
    assert said in predicted["refused"]
    assert predicted["note"] == f"llm-analysis-2023 has no answer: {predicted['refused']}"
    assert predicted["bound"] == "lower" and "fit" not in predicted, "the bound is nobody's estimate"


def test_the_formula_of_2023_says_what_it_takes_for_selective():
    formula, per_op = {"predict.formula": "llm-analysis-2023"}, {"activation_checkpointing.every": "per_op"}
    selective = {"activation_checkpointing": "selective", "leaves": formula | per_op}
    plain, own = make_cell(leaves=formula), make_cell(**selective)
    assert "selective" not in predict.predict(plain, FAST)["note"]
    assert predict.predict(own, FAST)["note"].endswith(
        "its selective, which computes attention again: ours keeps its output"
    )
    assert predict.predict(own, FAST)["peak_memory_bytes"] < predict.predict(plain, FAST)["peak_memory_bytes"]
    halves = make_cell(workload="forward", activation_checkpointing="selective", leaves=formula)
    assert "refused" not in predict.predict(halves, FAST), "a forward pass recomputes nothing"


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
    [
        (90, 0, "fits"),
        (90, 100, "fits"),
        (90, 120, "fits_with_retries"),
        (97, 0, "tight"),
        (104, 0, "tight"),
        (106, 0, "does_not_fit"),
    ],
)
def test_a_margin_lies_on_both_sides_of_the_limit(peak, reserved, fit):
    prediction = {"peak_memory_bytes": peak, "margin": 0.05, "reserved_memory_bytes": reserved}
    assert predict.judge(prediction, 100) == fit
    assert predict.judge(prediction, None) is None
    assert predict.judge({"peak_memory_bytes": 100}, 100) == "fits", "a bound has no margin"


@pytest.mark.parametrize(("least", "fit"), [(90, "fits_with_retries"), (97, "tight"), (106, "does_not_fit")])
def test_what_the_allocator_cannot_do_without_is_needed_too(least, fit):
    prediction = {"peak_memory_bytes": 80, "margin": 0.05, "reserved_memory_bytes": 120, "least_memory_bytes": least}
    assert predict.judge(prediction, 100) == fit


def test_the_allocator_has_what_context_and_nccl_leave():
    calibrated = replace(H200, calibration={"context_bytes": 1.0 * GIB, "nccl_bytes": 2.0 * GIB})
    alone, two = make_cell(), make_cell(visible_devices=2, strategy="ddp")
    assert predict.capacity_bytes(alone, calibrated) == H200.memory_bytes - GIB
    assert predict.capacity_bytes(two, calibrated) == H200.memory_bytes - 3 * GIB
    emulated = make_cell(leaves={"memory_limit_gib": 16.0})
    assert predict.capacity_bytes(emulated, calibrated) == 15 * GIB
    assert predict.memory_bytes(two, replace(CPU, memory_bytes=2**20 + 1)) == 2**19
    assert predict.capacity_bytes(two, CPU) == int(CPU.memory_bytes // 2 * predict.CPU_SHARE)


def test_memory_is_the_least_of_what_there_is_and_what_is_emulated():
    unknown, small = replace(H200, memory_bytes=None), replace(H200, memory_bytes=8 * GIB)
    limited = make_cell(leaves={"memory_limit_gib": 16.0})
    assert [predict.memory_bytes(limited, one) for one in (H200, unknown, small)] == [16 * GIB, 16 * GIB, 8 * GIB]
    assert predict.memory_bytes(make_cell(), unknown) is predict.capacity_bytes(make_cell(), unknown) is None
    assert predict.capacity_bytes(limited, replace(H200, calibration={"context_bytes": 20.0 * GIB})) == 0
    assert predict.predict(make_cell(), unknown)["fit"] is None


def test_a_prediction_is_as_sure_as_what_was_measured_of_its_kind():
    """Training in the formats of torch best, then finetuning, fp8, and what is only taken for another."""
    kinds = (
        {"workload": "train"},
        {"workload": "lora"},
        {"precision": "fp8"},
        {"compile": "thunder", "precision": "bf16-mixed"},
    )
    margins = [predict.margin_of(make_cell(**axes)) for axes in kinds]
    assert margins == sorted(set(margins))
    assert predict.margin_of(make_cell(precision="fp8-torchao")) == margins[2]
    assert predict.margin_of(make_cell(workload="forward")) == margins[1]
    assert predict.margin_of(make_cell(workload="generate")) == margins[1]
    dynamic = make_cell(compile="inductor", leaves={"compile.dynamic": True})
    assert predict.margin_of(dynamic) == margins[2]
    fabric = {"engine": "fabric", "visible_devices": 2}
    assert predict.margin_of(make_cell(strategy="ddp", workload="lora", **fabric)) == margins[1]
    assert predict.margin_of(make_cell(strategy="fsdp_stage3", **fabric)) == margins[0]
    model = {"compile": "thunder", "leaves": {"compile.scope": "model"}}
    assert predict.margin_of(make_cell(compile="thunder")) == predict.margin_of(make_cell(**model)) == margins[2]
    own = make_cell(strategy="fsdp_stage3", visible_devices=2, **model)
    assert predict.margin_of(own) == margins[3]
    on_cpu = predict.predict(make_cell(), CPU)["margin"]
    assert margins[2] < on_cpu < margins[3] == predict.predict(make_cell(**kinds[3]), CPU)["margin"]


@pytest.mark.parametrize("hardware", [FAST, CPU])
def test_the_peak_and_its_phase_are_those_of_the_device(hardware):
    cell = make_cell()
    predicted, peak = predict.predict(cell, hardware), peak_memory(cell, on_cpu=hardware is CPU)
    assert (predicted["peak_memory_bytes"], predicted["phase"]) == (peak.total_bytes, peak.phase)
    assert predicted["margin"] == (predict.margin_of(cell) if hardware is FAST else predict.CPU_MARGIN)
    assert (predicted["step_time_s"] is None) is (hardware is CPU)


def test_parity_is_predicted_for_the_small_model_that_it_makes():
    large = {"model.num_layers": 40, "model.d_model": 4096, "model.d_ff": 11008}
    small, whole = (predict.predict(make_cell(workload="parity", leaves=one), FAST) for one in ({}, large))
    assert whole["peak_memory_bytes"] < 4 * small["peak_memory_bytes"]
    assert whole["step_time_s"] < 2 * small["step_time_s"]


def test_the_time_lies_within_its_interval_and_utilization_needs_the_peaks_of_all_dtypes():
    predicted = predict.predict(make_cell(), FAST)
    assert predicted["step_time_low_s"] < predicted["step_time_s"] < predicted["step_time_high_s"]
    fp8 = make_cell(precision="fp8")
    peaks = {"bf16": 989e12, "fp8": 1979e12}
    assert predict.utilization(fp8.config, fp8.sizes, replace(FAST, peak_flops=peaks), 1.0) > 0
    for dtype in peaks:
        without = replace(FAST, peak_flops={name: peak for name, peak in peaks.items() if name != dtype})
        assert predict.utilization(fp8.config, fp8.sizes, without, 1.0) is None


@pytest.mark.parametrize(("workload", "flops"), [("train", 3), ("forward", 1)])
def test_a_core_cannot_be_faster_than_the_work_of_all_steps_allows(workload, flops):
    cell = make_cell(workload=workload, leaves={"measure.warmup_steps": 2, "measure.steps": 8, "global_batch_size": 4})
    tokens = 4 * cell.sizes.seq_len
    work = flops * tokens * arithmetic.forward_flops_per_token(cell.config.model, cell.sizes.seq_len)
    assert predict.cpu_time_s(cell.config, cell.sizes, 5) == pytest.approx(10 * work / (5 * predict.CPU_CORE_FLOPS))


def test_a_sample_of_generation_counts_its_new_tokens():
    predicted = predict.predict(make_cell(workload="generate"), FAST)
    assert predicted["tokens_per_second_per_device"] == pytest.approx(200 / predicted["step_time_s"])


def test_what_is_not_modelled_is_said():
    assert "note" not in predict.predict(make_cell(), FAST)
    scope, lengths = {"compile.scope": "model"}, {"workload.lengths": "alpaca"}
    thunder = make_cell(compile="thunder", strategy="fsdp_stage3", visible_devices=2, leaves=scope | lengths)
    note = predict.predict(thunder, FAST)["note"]
    assert note.startswith("not modelled: what thunder's own FSDP holds") and "a length" in note
    assert "note" not in predict.predict(make_cell(compile="thunder", leaves=scope), FAST)
    assert "autocast" in predict.predict(make_cell(compile="thunder", precision="bf16-mixed"), FAST)["note"]
    assert "note" not in predict.predict(make_cell(compile="thunder"), FAST)
    assert "note" not in predict.predict(make_cell(compile="thunder", workload="forward"), FAST)
    by_formula = predict.predict(make_cell(precision="bf16", leaves={"attention": "math"}), FAST)
    assert "attention=math" in by_formula["note"] and by_formula["step_time_s"] is None
    assert predict.predict(make_cell(precision="fp32", leaves={"attention": "math"}), FAST).get("note") is None
    fsdp1 = make_cell(visible_devices=2, strategy="fsdp_stage3", engine="fabric", workload="lora")
    assert "FSDP1" in predict.predict(fsdp1, FAST)["note"] and predict.margin_of(fsdp1) == 0.4
    assert "note" not in predict.predict(make_cell(engine="fabric"), FAST)
    for strategy, anew in (("fsdp_stage3", True), ("ddp", False)):
        graphs = {"compile": "inductor", "leaves": {"compile.mode": "reduce-overhead"}}
        replayed = predict.predict(make_cell(visible_devices=2, strategy=strategy, **graphs), FAST)
        assert ("CUDA graphs under FSDP" in replayed.get("note", "")) is anew and (
            replayed["step_time_s"] is None
        ) is anew
    apart = make_cell(visible_devices=1, strategy="ddp", leaves={"nodes": 2, "launcher.name": "slurm"})
    assert "the network between nodes" in predict.predict(apart, FAST)["note"]
