from dataclasses import replace

import pytest

from benchrunner.core import arithmetic
from benchrunner.plan import predict
from samples import CPU, H200, make_cell

FAST = replace(H200, memory_bandwidth_bytes_per_second=4.8e12, interconnect_bytes_per_second=4.5e11)


def test_bounds_come_from_arithmetic():
    cell = make_cell()
    predicted = predict.predict(cell, FAST)
    assert (predicted["method"], predicted["bound"]) == ("analytic", "lower")
    assert predicted["peak_memory_bytes"] == arithmetic.memory_lower_bound_bytes(cell.config, cell.sizes)
    assert predicted["step_time_s"] >= arithmetic.train_flops_per_step(cell.config, cell.sizes) / 989e12


def test_an_unknown_peak_gives_no_time():
    assert predict.predict(make_cell(), CPU)["step_time_s"] is None
    assert (
        predict.predict(make_cell(precision="fp32", leaves={"precision.compute_dtype": "float32"}), FAST)["step_time_s"]
        is None
    )


def test_a_workload_without_steps_has_no_time():
    assert predict.predict(make_cell(workload="forward"), FAST)["step_time_s"] is None


def test_checkpointing_keeps_less_and_computes_more():
    none, full = make_cell(), make_cell(activation_checkpointing="full")
    assert predict.activation_bytes(full.config, full.sizes) < predict.activation_bytes(none.config, none.sizes)
    times = [predict.compute_time_s(cell.config, cell.sizes, FAST) for cell in (none, full)]
    assert times[0] < times[1]


def test_a_pass_without_gradients_keeps_one_block():
    train, forward = make_cell(), make_cell(workload="forward")
    element = predict.ELEMENT_BYTES["bfloat16"]
    block = predict.block_bytes(train.config, train.sizes, element)
    saved = predict.activation_bytes(train.config, train.sizes) - predict.activation_bytes(
        forward.config, forward.sizes
    )
    assert saved == train.config.model.num_layers * block


def test_written_scores_grow_with_the_square_of_the_length():
    flash, math = make_cell(leaves={"seq_len": 64}), make_cell(leaves={"seq_len": 64, "attention": "math"})
    extra = predict.block_bytes(math.config, math.sizes, 2) - predict.block_bytes(flash.config, flash.sizes, 2)
    assert extra == 2 * 2 * 4 * 64 * 64


def test_a_chunked_loss_needs_less_for_the_head():
    cell = make_cell(leaves={"workload.loss_chunk_tokens": 16})
    assert predict.head_bytes(cell.config, 128, 2) == 16 * 512 * 8


@pytest.mark.parametrize(("strategy", "passes"), [("single", 0), ("ddp", 2), ("fsdp_stage2", 2), ("fsdp_stage3", 3)])
def test_collectives_send_as_often_as_the_strategy_gathers_and_reduces(strategy, passes):
    cell = make_cell(visible_devices=4, strategy=strategy)
    sent = predict.communication_time_s(cell.config, cell.sizes, FAST) * 4.5e11
    one = arithmetic.num_parameters(cell.config.model) * 2 * 3 / 4
    assert sent == pytest.approx(passes * one)


def test_a_slow_link_bounds_the_step():
    cell = make_cell(visible_devices=4, strategy="ddp")
    slow = replace(FAST, interconnect_bytes_per_second=1e3)
    assert predict.step_time_s(cell.config, cell.sizes, slow) == predict.communication_time_s(
        cell.config, cell.sizes, slow
    )


def test_time_follows_the_mean_length_and_memory_the_longest():
    fixed = make_cell()
    uniform = make_cell(leaves={"workload.lengths": "uniform", "workload.min_length": 28})
    alpaca = make_cell(leaves={"workload.lengths": "alpaca", "seq_len": 1000})
    assert predict.typical_sizes(fixed) == fixed.sizes
    assert predict.typical_sizes(uniform).seq_len == 78
    assert predict.typical_sizes(alpaca).seq_len == 110
    times = [predict.predict(cell, FAST)["step_time_s"] for cell in (fixed, uniform)]
    memories = [predict.predict(cell, FAST)["activation_bytes"] for cell in (fixed, uniform)]
    assert times[0] >= times[1] and memories[0] == memories[1]
