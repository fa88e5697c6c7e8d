from dataclasses import replace

import pytest

from benchrunner.core.errors import UsageError
from benchrunner.plan.calibrate import Sample, calibrate, fit
from benchrunner.plan.step_time import predict_step
from samples import H200, make_cell, make_record

FAST = replace(
    H200, memory_bandwidth_bytes_per_second=4.8e12, interconnect_bytes_per_second=4.5e11, peak_flops={"bf16": 989e12}
)
TRUE = {"clock": 1.0, "matmul": 0.6, "attention": 0.4, "memory": 0.5, "communication": 1.5}


def sample(visible_devices=2, leaves=None, ranks=(), **axes):
    """A cell that took what `TRUE` says."""
    cell = make_cell(visible_devices=visible_devices, leaves=leaves, **axes)
    step = predict_step(cell.config, cell.sizes, replace(FAST, calibration=TRUE))
    return Sample(cell=cell, record=make_record(cell, metrics={"step_time_median_s": step.seconds}, ranks=list(ranks)))


MEASURED = [
    sample(),
    sample(compile="inductor", leaves={"micro_batch_size": 4}),
    sample(activation_checkpointing="full", leaves={"seq_len": 32}),
    sample(strategy="ddp"),
    sample(strategy="fsdp_stage3", leaves={"micro_batch_size": 8}),
    sample(leaves={"model.d_model": 1024, "model.d_ff": 4096, "micro_batch_size": 8}),
]


def test_what_the_times_were_made_of_predicts_them():
    found = calibrate(MEASURED, FAST)
    assert found["spread"] == pytest.approx(0.05)
    for one in MEASURED:
        step = predict_step(one.cell.config, one.cell.sizes, replace(FAST, calibration=found))
        assert step.seconds == pytest.approx(one.record.metrics["step_time_median_s"], rel=0.02)


def test_a_fit_is_never_negative_and_leaves_empty_columns_out():
    assert fit([[1.0, 0.0, 2.0], [2.0, 0.0, 1.0]]) == pytest.approx([1 / 3, 0.0, 1 / 3])
    assert fit([[1.0, 3.0], [1.0, -3.0]])[1] == pytest.approx(0.0, abs=1e-9)
    assert min(fit([[1.0, 1.0], [1.0, 2.0], [1.0, 0.5]])) >= 0


def test_what_lies_outside_of_the_allocator_comes_from_the_driver():
    def rank(used):
        return {"memory": {"window": {}, "run": {"reserved_bytes": 100}, "nvml_used_bytes": used}}

    found = calibrate([sample(ranks=[rank(160)]), sample(strategy="ddp", ranks=[rank(190), rank(190)])], FAST)
    assert (found["context_bytes"], found["nccl_bytes"]) == (60, 30)


def test_nothing_measured_is_an_error():
    failed = Sample(cell=make_cell(), record=make_record(make_cell(), status="failed"))
    with pytest.raises(UsageError, match="no measured cell"):
        calibrate([failed], FAST)
