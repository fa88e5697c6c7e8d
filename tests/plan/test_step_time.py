from dataclasses import replace

import pytest

from benchrunner.core import arithmetic
from benchrunner.plan import step_time
from samples import CPU, H200, make_cell

FAST = replace(
    H200,
    memory_bandwidth_bytes_per_second=4.8e12,
    interconnect_bytes_per_second=4.5e11,
    peak_flops={"bf16": 989e12, "fp8": 1979e12},
)


def ideal(visible_devices=2, leaves=None, **axes):
    cell = make_cell(visible_devices=visible_devices, leaves=leaves, **axes)
    return step_time.ideal_seconds(cell.config, cell.sizes, FAST)


def test_all_work_is_in_one_term():
    cell = make_cell(activation_checkpointing="full")
    flops = step_time.flops_by_kind(cell.config, cell.sizes)
    assert sum(flops.values()) == pytest.approx(arithmetic.hardware_flops_per_step(cell.config, cell.sizes))


def test_efficiencies_divide_and_the_clock_scales_what_is_computed():
    cell = make_cell()
    chosen = {"clock": 0.5, "matmul": 0.8, "attention": 1.0, "memory": 0.25, "spread": 0.1}
    step = step_time.predict_step(cell.config, cell.sizes, replace(FAST, calibration=chosen))
    free = ideal()
    expected = free["matmul"] / 0.4 + free["attention"] / 0.5 + free["memory"] / 0.25
    assert step.seconds == pytest.approx(expected)
    assert (step.low_s, step.high_s) == (pytest.approx(0.9 * expected), pytest.approx(1.1 * expected))
    assert step.limited_by == "memory"


def test_an_unknown_peak_gives_no_time():
    cell = make_cell()
    assert step_time.predict_step(cell.config, cell.sizes, CPU) is None
    assert ideal(workload="generate") is None
    fp8 = make_cell(precision="fp8")
    assert step_time.ideal_seconds(fp8.config, fp8.sizes, replace(FAST, peak_flops={"bf16": 1e15})) is None


def test_fp8_leaves_attention_and_what_is_kept_in_bf16():
    times = ideal(precision="fp8")
    assert times["matmul"] == 0 and times["matmul_fp8"] > 0 and times["attention"] > 0
    assert ideal(precision="fp8", leaves={"precision.scope": "blocks"})["matmul"] > 0


@pytest.mark.parametrize(("strategy", "passes"), [("single", 0), ("ddp", 2), ("fsdp_stage2", 2), ("fsdp_stage3", 3)])
def test_collectives_send_as_often_as_the_strategy_gathers_and_reduces(strategy, passes):
    cell = make_cell(visible_devices=4, strategy=strategy)
    one = arithmetic.num_parameters(cell.config.model) * 2 * 3 / 4
    assert step_time.sent_bytes(cell.config, cell.sizes) == pytest.approx(passes * one)


def test_ddp_reduces_once_and_fsdp_in_every_micro_step():
    for strategy, factor in (("ddp", 1), ("fsdp_stage3", 4)):
        once, often = (
            make_cell(visible_devices=2, strategy=strategy, leaves={"global_batch_size": size}) for size in (2, 8)
        )
        assert step_time.sent_bytes(often.config, often.sizes) == factor * step_time.sent_bytes(once.config, once.sizes)


def test_fused_kernels_move_less():
    assert ideal(compile="inductor")["memory"] < ideal()["memory"]


def test_nothing_goes_backward_below_the_first_prompt_of_an_adapter():
    layers = {"model.num_layers": 4, "workload.adapter_start_layer": 0}
    whole = ideal(workload="adapter", leaves=layers)
    half = ideal(workload="adapter", leaves=layers | {"workload.adapter_start_layer": 2})
    assert all(half[name] < whole[name] for name in ("matmul", "attention", "memory"))
    assert half["attention"] == pytest.approx(whole["attention"] * 2 / 3)
