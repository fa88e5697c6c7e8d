from dataclasses import replace

import pytest

from benchrunner.core.errors import UsageError
from benchrunner.plan.calibrate import LEAST_SPREAD, Sample, Timed, calibrate, fit
from benchrunner.plan.step_time import RESOURCES, predict_step
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
    ideal = {**dict.fromkeys(RESOURCES, 0.0), "matmul": 1.0, "memory": 0.01}
    found = fit([Timed(ideal_s=ideal, time_s=2.02, in_turns=False)], before)
    assert found["matmul"] == pytest.approx(0.5, rel=0.05)
    assert found["memory"] == pytest.approx(1.0, rel=0.02) and found["attention"] == 1.0


def test_what_lies_outside_of_the_allocator_comes_from_the_driver():
    def rank(used):
        return {"memory": {"window": {}, "run": {"reserved_bytes": 100}, "nvml_used_bytes": used}}

    found = calibrate([sample(ranks=[rank(160)]), sample(strategy="ddp", ranks=[rank(190), rank(190)])], FAST)
    assert (found["context_bytes"], found["nccl_bytes"]) == (60, 30)


def test_nothing_measured_is_an_error():
    failed = Sample(cell=make_cell(), record=make_record(make_cell(), status="failed"))
    with pytest.raises(UsageError, match="no measured cell"):
        calibrate([failed], FAST)
