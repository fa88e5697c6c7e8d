"""What published tables measured, from the samples of a record."""

from dataclasses import replace

import pytest

from benchrunner.core import arithmetic
from benchrunner.report.original_metrics import QUANTITIES
from samples import make_cell, make_record, make_row

RANK = {
    "step_times_s": [2.0, 0.5, 5.0, 4.0], "flops": {"model_per_step": 20e12}, "tokens_per_step": 40,
    "samples": [
        {"cold": False, "prefill_s": 1.0, "decode_s": 1.0}, {"cold": True, "prefill_s": 0.5, "decode_s": 1.5},
        {"cold": True, "prefill_s": 9.0, "decode_s": 9.0},
    ],
}  # fmt: skip
METRICS = {
    "peak_memory_reserved_bytes": 3 * 2**20, "hardware_flops_per_second_per_device": 5e12,
    "gpu_utilization_mean": 90.0, "gpu_utilization_sd": 2.0, "num_alloc_retries": 7,
}  # fmt: skip
SIZES = {"generate.new_tokens": 60, "micro_batch_size": 1, "global_batch_size": 8}


def quantities(cell, **record):
    row = make_row(cell, make_record(cell, **{"metrics": METRICS, "ranks": [RANK, {}]} | record))
    return {name: quantity(row) for name, quantity in QUANTITIES.items()}


def test_samples_of_the_first_rank():
    """Steps of 2, 0.5, 5 and 4 s on two devices, of 4 micro-batches each."""
    found = quantities(make_cell(strategy="ddp", leaves=SIZES))
    assert (found["best_s"], found["total_s"], found["last_iteration_ms"]) == (0.5, 11.5, 4000.0)
    assert found["minutes_of_1000"] == pytest.approx(11.5 / 4 / 4 * 1000 / 60)
    assert found["model_tflops"] == pytest.approx((10 + 40 + 4 + 5) / 4 / 2)
    assert found["tokens_per_second"] == pytest.approx((20 + 80 + 8 + 10) / 4)


def test_rates_of_generation():
    """60 new tokens: of the fastest sample, of the first cold one (0.5 and 1.5 s), of the median."""
    found = quantities(make_cell(workload="generate", leaves=SIZES))
    assert (found["best_tokens_per_second"], found["cold_tokens_per_second"]) == (120.0, 30.0)
    assert found["warm_tokens_per_second"] == 60 / 3.0


def test_numbers_of_the_record_in_the_units_of_the_original():
    found = quantities(make_cell(), num_trainable_parameters=11)
    assert (found["reserved_mib"], found["hardware_tflops"], found["trainable_parameters"]) == (3.0, 5.0, 11)
    assert (found["gpu_utilization_mean"], found["gpu_utilization_sd"], found["alloc_retries"]) == (90.0, 2.0, 7)


@pytest.mark.parametrize(("precision", "unpacked"), [("bf16", 0), ("nf4", 4)])
def test_4_bit_inference_of_2023_holds_its_head_unpacked_twice(precision, unpacked):
    cell = make_cell(workload="generate", precision=precision)
    config = cell.config
    needed = arithmetic.memory_lower_bound_bytes(config, cell.sizes)
    head = config.model.vocab_size * config.model.d_model
    assert quantities(cell)["law_of_2023_gb"] == pytest.approx((needed + unpacked * head) / 1e9)


def test_parts_of_a_prediction_in_the_units_of_the_original():
    parts = {"gpu_hours": 77832.8, "prefill_s": 0.5, "forward_mlp_s": 0.25, "decode_head_s": 2.0, "weight_bytes": 3e9}
    row = make_row(make_cell())
    row = replace(row, planned=replace(row.planned, predicted={"parts": parts}))
    names = ("gpu_hours", "prefill_ms", "forward_mlp_ms", "decode_head_ms", "weight_gb", "cache_gb")
    assert [QUANTITIES[f"predicted_{name}"](row) for name in names] == [77832, 500.0, 250.0, 2000.0, 3.0, None]


@pytest.mark.parametrize("record", [None, {"metrics": {}, "ranks": []}, {"metrics": {}, "ranks": [{}]}])
def test_what_is_unknown_is_nothing(record):
    cell = make_cell(workload="generate")
    row = make_row(cell, make_record(cell, **record, num_trainable_parameters=None) if record else None)
    assert {name: quantity(row) for name, quantity in QUANTITIES.items()} == dict.fromkeys(QUANTITIES)


@pytest.mark.parametrize("left_out", ["flops", "tokens_per_step", "step_times_s"])
def test_a_rate_needs_all_that_it_is_made_of(left_out):
    cell = make_cell()
    rank = {name: value for name, value in RANK.items() if name != left_out}
    found = quantities(cell, ranks=[rank])
    assert (found["model_tflops"] is None) is (left_out != "tokens_per_step")
    assert (found["tokens_per_second"] is None) is (left_out != "flops")
