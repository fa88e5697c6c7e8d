"""Combinations agree with fp32 on one device, and what computes something else does not."""

import json
import math
import os
import subprocess
from pathlib import Path

import pytest
import torch

from benchrunner.small_scale import small_scale
from benchrunner.worker import parity
from benchrunner.worker.parity import Difference, draw_task_step, judge, summarise
from benchrunner.worker.parity_tolerances import FACTOR, KNOWN_GOOD, Errors, collect, tolerance
from cells import make_cell, make_context, torchrun

JOB = Path(__file__).parent / "parity_job.py"
CPU = torch.device("cpu")

RIGHT = [
    "|strategy=single,ddp,fsdp_stage3 precision=bf16",
    "|strategy=fsdp_stage2 precision=fp32 activation_checkpointing=full global_batch_size=32",
    "|strategy=fsdp_stage3 precision=fp8-torchao activation_checkpointing=selective",
    "|strategy=ddp precision=nf4",
]
WRONG = [
    "no_reduce|strategy=ddp,fsdp_stage3 precision=fp8-torchao",
    "double_reduce|strategy=ddp,fsdp_stage2 precision=bf16",
    "wrong_scale|strategy=single,fsdp_stage3 precision=fp8-torchao global_batch_size=8",
    "stale_recompute|strategy=single,fsdp_stage2 precision=bf16 activation_checkpointing=full",
    "wrong_linear|strategy=single,fsdp_stage3 precision=fp8-torchao",
]
"""Each in the precision with the widest tolerance that can have it."""


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """One process group of two ranks runs all of them."""
    out = tmp_path_factory.mktemp("parity") / "out.json"
    job = subprocess.run(
        torchrun(JOB, str(out), *RIGHT, *WRONG),
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert job.returncode == 0, job.stderr[-3000:]
    return json.loads(out.read_text())


@pytest.mark.slow
def test_known_good_combinations_are_within_tolerance(results):
    right = [result for result in results if not result["fault"]]
    assert len(right) == 6
    for result in right:
        assert result["checks"]["parity"]["ok"] is True, result


@pytest.mark.slow
def test_the_task_is_learned(results):
    for result in results:
        if not result["fault"] and result["axes"]["precision"] != "nf4":
            losses = result["parity"]["reference_losses"]
            assert losses[0] == pytest.approx(math.log(256), abs=0.6)
            assert losses[-1] < losses[0] - 2


@pytest.mark.slow
def test_every_fault_exceeds_the_tolerance(results):
    wrong = [result for result in results if result["fault"]]
    assert len(wrong) == 10
    for result in wrong:
        check = result["checks"]["parity"]
        assert check["ok"] is False and check["expected"] != check["observed"], result


def test_fp32_alone_is_the_reference_itself():
    result = parity.run(make_context(make_cell("workload=parity", "precision=fp32")))
    assert result["metrics"]["parity_gradient_error"] < 1e-5
    assert result["metrics"]["parity_cosine"] > 1 - 1e-5
    assert result["metrics"]["parity_curve_error"] < 1e-4
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_each_token_of_the_task_tells_the_next():
    cell = small_scale(make_cell("workload=parity"))
    tokens = torch.cat([batch for step in range(3) for batch in draw_task_step(cell, step, 0, CPU)])
    successors = {}
    for token, following in zip(tokens[:, :-1].flatten().tolist(), tokens[:, 1:].flatten().tolist(), strict=True):
        assert successors.setdefault(token, following) == following
    assert len(set(tokens[:, 0].tolist())) > 10


def test_ranks_share_the_global_batch_of_the_reference():
    two = small_scale(make_cell("workload=parity", "strategy=ddp", "devices=2"))
    one = small_scale(make_cell("workload=parity", "global_batch_size=2"))
    halves = [torch.cat(draw_task_step(two, 5, rank, CPU)) for rank in (0, 1)]
    assert torch.equal(torch.cat(halves), torch.cat(draw_task_step(one, 5, 0, CPU)))


def test_a_missing_gradient_is_the_largest_error():
    wanted = torch.ones(4)
    assert parity._difference("w", 0, None, wanted).error == 1.0
    assert parity._difference("w", 0, torch.zeros(4), torch.zeros(4)).error == 0.0
    assert parity._difference("w", 0, wanted, torch.zeros(4)).error == math.inf
    assert parity._difference("w", 0, 2 * wanted, wanted).cosine == pytest.approx(1.0)


def test_the_worst_counts():
    differences = [Difference("a", 0, 0.1, 0.999), Difference("b", 0, 0.3, 0.9)]
    assert summarise(differences, [3.0, 2.0], [3.0, 2.5]) == Errors(0.3, pytest.approx(0.1), 0.5)
    with pytest.raises(FloatingPointError, match="step 1"):
        summarise(differences, [3.0, math.nan], [3.0, 2.5])


def test_a_precision_that_was_never_measured_is_not_judged():
    finding = judge("fp7", Errors(9, 9, 9), [Difference("a", 0, 9, 0)])
    assert finding.ok is None and "fp7" in finding.note


@pytest.mark.parametrize("precision", KNOWN_GOOD)
def test_a_tolerance_is_three_known_good_errors(precision):
    known, allowed = KNOWN_GOOD[precision], tolerance(precision)
    assert allowed == known.scaled(FACTOR) and FACTOR == 3
    worst = [Difference("a", 0, 0, 1)]
    assert judge(precision, known, worst).ok is True
    assert judge(precision, known.scaled(3.1), worst).ok is False


def test_errors_are_collected_from_records(tmp_path):
    def record(name, precision, gradient, workload="parity"):
        metrics = {"parity_gradient_error": gradient, "parity_cosine": 0.9, "parity_curve_error": 0.5}
        path = tmp_path / name
        path.write_text(json.dumps({"metrics": metrics, "axes": {"precision": precision, "workload": workload}}))
        return path

    paths = [record("1", "bf16", 0.1), record("2", "bf16", 0.2), record("3", "fp8", 0.3), record("4", "x", 1, "train")]
    assert collect(paths) == {
        "bf16": Errors(0.2, pytest.approx(0.1), 0.5),
        "fp8": Errors(0.3, pytest.approx(0.1), 0.5),
    }
