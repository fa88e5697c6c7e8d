import math
from dataclasses import replace

import pytest

from benchrunner.core.errors import UsageError
from benchrunner.plan.calibrate import LEAST_SPREAD, Sample, Timed, calibrate, fit, fit_times, timed_by
from benchrunner.plan.predict import predict
from benchrunner.plan.step_time import RESOURCES, efficiencies, predict_step
from samples import H200, make_cell, make_record

FAST = replace(
    H200, memory_bandwidth_bytes_per_second=4.8e12, interconnect_bytes_per_second=4.5e11, peak_flops={"bf16": 989e12}
)
TRUE = {
    "clock": 0.9, "matmul": 0.6, "attention": 0.4, "elementwise": 0.5, "memory": 0.7, "communication": 1.2, "host": 0.4,
}  # fmt: skip
WIDE = {"model.d_model": 4096, "model.d_ff": 8192, "seq_len": 1024, "model.max_seq_len": 4096}


def sample(visible_devices=2, leaves=None, ranks=(), **axes):
    """A cell that took what `TRUE` says."""
    cell = make_cell(visible_devices=visible_devices, leaves=leaves, **axes)
    step = predict_step(cell.config, cell.sizes, replace(FAST, calibration=TRUE))
    return Sample(cell=cell, record=make_record(cell, metrics={"step_time_median_s": step.seconds}, ranks=list(ranks)))


MEASURED = [
    sample(),
    sample(compile="inductor", leaves={"micro_batch_size": 4}),
    sample(leaves=WIDE),
    sample(activation_checkpointing="full", leaves={**WIDE, "micro_batch_size": 4}),
    sample(strategy="ddp", leaves=WIDE),
    sample(strategy="fsdp_stage3", leaves={**WIDE, "seq_len": 4096}),
]


def test_what_the_times_were_made_of_predicts_them():
    found = calibrate(MEASURED, FAST)
    assert (found["spread"], found["host_spread"]) == (LEAST_SPREAD["spread"], LEAST_SPREAD["host_spread"])
    for one in MEASURED:
        step = predict_step(one.cell.config, one.cell.sizes, replace(FAST, calibration=found))
        assert step.seconds == pytest.approx(one.record.metrics["step_time_median_s"], rel=0.02)


def test_what_no_sample_tells_is_left_out():
    host_alone = calibrate(MEASURED[:2], FAST)
    assert set(host_alone) == {"clock", "host", "host_spread"}
    assert host_alone["host"] == pytest.approx(TRUE["host"], rel=0.02)
    assert not {"matmul_fp8", "decode"} & set(calibrate(MEASURED, FAST))


def test_a_few_cells_of_one_kind_leave_what_is_known_of_the_rest():
    before = {**dict.fromkeys(RESOURCES, 1.0), "clock": 1.0}
    found = fit([Timed(ideal_s=ideal(matmul=1.0, memory=0.01), time_s=2.02, in_turns=False)], before)
    assert found["matmul"] == pytest.approx(0.5, rel=0.05)
    assert found["memory"] == pytest.approx(1.0, rel=0.02) and found["attention"] == 1.0


def ideal(**seconds):
    return {**dict.fromkeys(RESOURCES, 0.0), **seconds}


def test_an_efficiency_lies_where_measured_time_and_belief_balance():
    """Squares of the relative error ÷ 0.03 and of the logarithm ÷ 0.25 have their least sum there."""
    before = {**dict.fromkeys(RESOURCES, 1.0), "clock": 1.0}
    found = fit([Timed(ideal_s=ideal(matmul=1.0), time_s=2.0, in_turns=False)], before)["matmul"]

    def cost(reached):
        return ((1 / reached / 2.0 - 1) / 0.03) ** 2 + (math.log(reached) / 0.25) ** 2

    assert cost(found) <= min(cost(found * 1.0001), cost(found / 1.0001))


@pytest.mark.parametrize(
    ("host", "in_turns", "terms"),
    [
        (2.0, False, {"matmul": 2.0, "memory": 0.5}),
        (3.0, False, {"host": 3.0}),
        (2.0, True, {"matmul": 2.0, "memory": 0.5, "host": 2.0}),
        (0.0, True, {"matmul": 2.0, "memory": 0.5, "host": 0.0}),
    ],
)
def test_the_host_counts_where_it_is_slower_or_takes_turns(host, in_turns, terms):
    one = Timed(ideal_s=ideal(matmul=1.0, memory=0.5, host=host), time_s=5.0, in_turns=in_turns)
    reached = dict.fromkeys(RESOURCES, 1.0) | {"matmul": 0.5}
    assert one.seconds(reached) == terms
    assert one.error(reached) == pytest.approx(sum(terms.values()) / 5.0 - 1)


def test_what_the_host_does_not_slow_down_is_the_devices():
    one = Timed(ideal_s=ideal(matmul=0.1), time_s=1.0, in_turns=False)
    assert one.seconds(dict.fromkeys(RESOURCES, 1.0)) == {"matmul": 0.1}


@pytest.mark.parametrize(
    "given",
    [
        {"workload": "lora", "leaves": {**WIDE, "workload.lengths": "alpaca", "micro_batch_size": 4}},
        {"workload": "generate", "strategy": "fsdp_stage3", "leaves": WIDE},
    ],
)
def test_a_cell_is_fitted_by_what_it_is_predicted_by(given):
    cell = make_cell(**given)
    found = timed_by(cell, predict(cell, FAST)["step_time_s"], FAST)
    assert found.error(efficiencies({})) == pytest.approx(0, abs=1e-9)


def test_what_measured_nothing_or_has_no_prediction_is_left_out():
    def with_record(one, **changes):
        return replace(one, record=replace(one.record, **changes))

    slow = {"step_time_median_s": 1e6}
    parity = make_cell(workload="parity")
    others = [
        with_record(MEASURED[2], metrics=slow, fault="slow"),
        with_record(MEASURED[2], metrics=slow, status="invalid"),
        with_record(MEASURED[2], metrics={}),
        Sample(cell=parity, record=make_record(parity, metrics=slow)),
    ]
    assert calibrate([MEASURED[3], *others], FAST) == calibrate([MEASURED[3]], FAST)


def test_the_interval_holds_nine_of_ten_cells():
    timed = [Timed(ideal_s=ideal(matmul=1.0), time_s=1 + number / 10, in_turns=False) for number in range(20)]
    found = fit_times(timed, FAST)
    errors = sorted(abs(one.error(efficiencies(found))) for one in timed)
    assert found["spread"] == pytest.approx(errors[18])


def rank(used):
    return {"memory": {"window": {}, "run": {"reserved_bytes": 100}, "nvml_used_bytes": used}}


ALONE, PAIR = sample(ranks=[rank(160)]), sample(strategy="ddp", ranks=[rank(190), rank(190)])


@pytest.mark.parametrize(
    ("samples", "context", "nccl"),
    [
        ([ALONE, PAIR], 60, 30),
        ([ALONE], 60, None),
        ([PAIR], None, None),
        ([ALONE, sample(strategy="ddp", ranks=[rank(150), rank(159)])], 60, 0),
        ([sample(ranks=[{}, {"memory": None}, rank(None), rank(160)]), PAIR], 60, 30),
    ],
)
def test_what_lies_outside_of_the_allocator_comes_from_the_driver(samples, context, nccl):
    found = calibrate(samples, FAST)
    assert (found.get("context_bytes"), found.get("nccl_bytes")) == (context, nccl)


def test_nothing_measured_is_an_error():
    failed = Sample(cell=make_cell(), record=make_record(make_cell(), status="failed"))
    with pytest.raises(UsageError, match="no measured cell"):
        calibrate([failed], FAST)
