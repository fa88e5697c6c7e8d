"""Headline numbers and flags from made-up ranks whose statistics are known."""

import pytest

from benchrunner.outcome.metrics import flags_of, headline, percentile
from samples import make_cell

MEMORY = {
    "window": {"allocated_bytes": 10, "reserved_bytes": 20},
    "run": {"allocated_bytes": 30, "reserved_bytes": 40},
    "steps": {"allocated_bytes": 25, "reserved_bytes": 35},
    "num_alloc_retries": 0,
    "num_ooms": 0,
    "nvml_used_bytes": 50,
    "scope": "window",
}
PEAKS = {"peak_flops": {"bf16": 1000.0, "fp8": 2000.0}}


def make_rank(times=(1.0, 1.0, 1.0), **changes):
    rank = {
        "step_times_s": list(times),
        "losses": [3.0, 2.0],
        "tokens_per_step": 600,
        "memory": MEMORY,
        "compile": {
            "first_step_s": 9.0,
            "compile_s": 7.0,
            "num_graphs": 2,
            "num_graph_breaks": 0,
            "num_window_recompiles": 0,
        },
        "flops": {"model_per_step": 800.0, "hardware_per_step": 1000.0, "by_dtype": {"bf16": 800.0}},
    }
    return rank | changes


@pytest.fixture
def cell():
    return make_cell()


def world_size(cell):
    return cell.sizes.world_size


def test_percentile_interpolates_between_closest_ranks():
    assert percentile([4, 1, 3, 2], 0.5) == 2.5
    assert percentile([1], 0.9) == 1
    assert percentile([0, 10], 0.1) == 1
    with pytest.raises(ValueError, match="no samples"):
        percentile([], 0.5)


def test_step_time_is_that_of_the_rank_with_the_largest_total(cell):
    fast, slow = make_rank([1.0, 5.0, 1.0]), make_rank([3.0, 3.0, 3.0])
    metrics = headline(cell, [fast, slow], PEAKS)
    assert metrics["step_time_median_s"] == 3.0
    assert metrics["step_time_rank_skew"] == pytest.approx(9 / 7 - 1)


def test_what_a_workload_reports_is_that_of_the_same_rank(cell):
    fast = make_rank(times=(1.0, 1.0), metrics={"time_to_first_token_s": 0.1})
    slow = make_rank(times=(2.0, 1.0), metrics={"time_to_first_token_s": 0.2})
    assert headline(cell, [fast, slow], {})["time_to_first_token_s"] == 0.2


def test_rates_are_a_device(cell):
    metrics = headline(cell, [make_rank([2.0, 2.0, 2.0])], PEAKS)
    assert metrics["tokens_per_second_per_device"] == 600 / 2 / world_size(cell)
    assert metrics["model_flops_per_second_per_device"] == 800 / 2 / world_size(cell)
    assert metrics["mfu"] == pytest.approx(800 / 1000 / 2 / world_size(cell))


def test_mfu_judges_each_dtype_by_its_own_peak_and_is_null_without_one(cell):
    flops = {"model_per_step": 800.0, "hardware_per_step": 800.0, "by_dtype": {"bf16": 200.0, "fp8": 600.0}}
    expected = (200 / 1000 + 600 / 2000) / world_size(cell)
    assert headline(cell, [make_rank(flops=flops)], PEAKS)["mfu"] == pytest.approx(expected)
    assert headline(cell, [make_rank(flops=flops)], {"peak_flops": {"bf16": 1000.0}})["mfu"] is None


def test_memory_is_that_of_the_worst_rank(cell):
    larger = make_rank(memory=MEMORY | {"window": {"allocated_bytes": 15, "reserved_bytes": 16}})
    assert headline(cell, [make_rank(), larger], PEAKS)["peak_memory_allocated_bytes"] == 15


def test_an_allocated_peak_that_no_step_showed_is_not_given(cell):
    found = headline(cell, [make_rank(memory=MEMORY | {"scope": "replay"})] * 2, PEAKS)
    allocated = ("peak_memory_allocated_bytes", "run_peak_memory_allocated_bytes", "steps_peak_memory_allocated_bytes")
    assert [found[name] for name in (*allocated, "peak_memory_reserved_bytes")] == [None, None, None, 20]


def test_energy_is_null_unless_every_rank_has_it(cell):
    known, unknown = make_rank(energy_j=30.0), make_rank(energy_j=None)
    assert headline(cell, [known, known], PEAKS)["energy_j_per_step"] == 20.0
    assert headline(cell, [known, unknown], PEAKS)["energy_j_per_step"] is None


def test_no_flag_without_a_cause(cell):
    assert flags_of(cell, [make_rank([1.0] * 12)]) == []


@pytest.mark.parametrize(
    ("changes", "flag"),
    [
        ({"memory": MEMORY | {"num_alloc_retries": 2}}, "alloc_retries"),
        ({"compile": {"num_graph_breaks": 1}}, "graph_breaks"),
        ({"compile": {"num_window_recompiles": 1}}, "recompiled"),
        ({"clock_event_reasons": ["hw_thermal_slowdown"]}, "throttled"),
        ({"foreign_processes": 1}, "foreign_process"),
        ({"times": [1.0] * 6 + [1.2] * 6}, "unstable"),
        ({"times": [1.0, 1.2] * 6}, "unstable"),
        ({"checks": {"parity": {"ok": None}}}, "unjudged"),
    ],
)
def test_each_cause_sets_its_flag(cell, changes, flag):
    assert flags_of(cell, [make_rank(**changes)]) == [flag]


@pytest.mark.parametrize("checks", [{}, {"parity": {"ok": True}}, {"sharded": {"ok": None}}])
def test_what_is_judged_or_does_not_apply_sets_none(cell, checks):
    assert flags_of(cell, [make_rank(checks=checks)]) == []


def test_the_power_cap_is_no_throttling(cell):
    assert flags_of(cell, [make_rank(clock_event_reasons=["sw_power_cap"])]) == []


def test_rates_of_samples_of_varying_length_are_tokens_over_time():
    varying = make_cell(leaves={"workload.lengths": "alpaca"})
    rank = make_rank([1.0, 1.0, 7.0])
    rates = {lengths: headline(cell, [rank], PEAKS) for lengths, cell in (("a", make_cell()), ("b", varying))}
    assert rates["a"]["tokens_per_second_per_device"] == 600
    assert rates["b"]["tokens_per_second_per_device"] == 200
    assert rates["b"]["step_time_median_s"] == 1.0


def test_every_headline_number_of_two_ranks(cell):
    used = {"utilization": {"mean": 90.0, "sd": 2.0}, "sm_clock_mhz": {"mean": 1900.0, "sd": 9.0}}
    memory = MEMORY | {"run": {"allocated_bytes": 31, "reserved_bytes": 40}, "num_alloc_retries": 3}
    compiled = {
        "first_step_s": 8.0,
        "compile_s": 7.5,
        "num_graphs": 3,
        "num_graph_breaks": 2,
        "num_window_recompiles": 1,
    }
    first = make_rank([1.0, 2.0, 3.0], choices={"attention": "flash"}, energy_j=3.0, samples_per_step=12, **used)
    second = make_rank([1.0, 1.0, 1.0], memory=memory, compile=compiled, energy_j=6.0, sm_clock_mhz={"mean": 1800.0})
    world = world_size(cell)
    assert headline(cell, [first, second], PEAKS) == pytest.approx(
        {
            "step_time_median_s": 2.0,
            "step_time_p10_s": 1.2,
            "step_time_p90_s": 2.8,
            "step_time_min_s": 1.0,
            "step_time_rank_skew": 1.0,
            "peak_memory_allocated_bytes": 10,
            "peak_memory_reserved_bytes": 20,
            "run_peak_memory_allocated_bytes": 31,
            "steps_peak_memory_allocated_bytes": 25,
            "num_alloc_retries": 3,
            "memory_scope": "window",
            "compile_time_s": 7.5,
            "first_step_s": 9.0,
            "num_graphs": 3,
            "num_graph_breaks": 2,
            "num_recompiles": 1,
            "energy_j_per_step": 3.0,
            "gpu_utilization_mean": 90.0,
            "gpu_utilization_sd": 2.0,
            "sm_clock_mhz_mean": 1850.0,
            "tokens_per_second_per_device": 300 / world,
            "samples_per_second": 6.0,
            "model_flops_per_second_per_device": 400 / world,
            "hardware_flops_per_second_per_device": 500 / world,
            "mfu": 0.4 / world,
            "first_loss": 3.0,
            "final_loss": 2.0,
            "attention": "flash",
        }
    )


def test_rates_are_shared_by_the_devices_of_a_cell():
    cell = make_cell(strategy="ddp")
    found = headline(cell, [make_rank(), make_rank()], PEAKS)
    assert found["tokens_per_second_per_device"] == 300 and found["hardware_flops_per_second_per_device"] == 500
    assert found["samples_per_second"] == cell.sizes.global_batch_size == 2


def test_of_ranks_that_say_nothing_nothing_is_known(cell):
    found = headline(cell, [{}, {}], None)
    assert set(found.values()) == {None}


def test_of_steps_without_tokens_there_is_no_rate(cell):
    found = headline(cell, [make_rank(tokens_per_step=0)], None)
    assert found["step_time_median_s"] == 1.0 and found["samples_per_second"] is None and found["mfu"] is None


def test_energy_of_a_single_step_is_known_too(cell):
    assert headline(cell, [make_rank([2.0], energy_j=5.0)], PEAKS)["energy_j_per_step"] == 5.0


@pytest.mark.parametrize(
    ("times", "is_unstable"),
    [
        ([1.0, 9.0, 1.0, 1.0, 1.0], False),
        ([1.0, 9.0, 1.0, 1.0, 1.0, 9.0], True),
        ([2.0, 2.0, 2.04, 2.04, 2.06, 2.06], True),
        ([2.0, 2.0, 2.02, 2.02, 2.04, 2.04], False),
        ([2.06, 2.06, 2.04, 2.04, 2.0, 2.0], True),
        ([1.06, *[1.0] * 9, 1.06, 1.06], True),
        ([1.04, *[1.0] * 9, 1.04, 1.04], False),
        ([2.1, 2.1, 2.1, 2.0, 2.0, 2.0, 2.0, 2.0, 2.1, 2.1, 2.1], False),
    ],
)
def test_a_wide_spread_or_a_trend_is_unstable(cell, times, is_unstable):
    assert ("unstable" in flags_of(cell, [make_rank(times)])) is is_unstable
