"""The forward loop counts what it does and sees a model that is not alive."""

import json

import pytest
import torch

from benchrunner.core import arithmetic
from benchrunner.core.faults import parse_fault
from benchrunner.worker.engines.engine import build
from benchrunner.worker.faults.plant import planted
from benchrunner.worker.steps import data
from benchrunner.worker.workloads import forward
from cells import make_cell, make_context

SMALL = ["workload=forward", "model.num_layers=2", "seq_len=32", "measure.steps=3", "measure.warmup_steps=1"]


def run(*words, fault=None):
    with planted(parse_fault(fault), context := make_context(make_cell(*SMALL, *words))):
        return forward.run(context)


def test_result_has_one_sample_a_pass_and_no_loss():
    result = run("global_batch_size=4", "micro_batch_size=2")
    cell = make_cell(*SMALL, "global_batch_size=4")
    assert len(result["step_times_s"]) == 3
    assert result["tokens_per_step"] == 4 * 32
    assert result["losses"] == []
    model_flops = 128 * arithmetic.forward_flops_per_token(cell.config.model, 32)
    assert result["flops"]["model_per_step"] == result["flops"]["hardware_per_step"] == model_flops
    assert all(result["checks"][name]["ok"] for name in ("work", "logits"))
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_logits_are_those_of_the_decoder():
    context = make_context(make_cell(*SMALL, "precision=fp32"))
    loop = forward.ForwardLoop(context, built := build(context))
    batch = data.draw_step(context.cell, 0, 0, context.device)[0]
    with torch.inference_mode():
        assert torch.equal(loop.logits(batch), built.decoder(batch[:, :-1]))


@pytest.mark.parametrize(
    ("fault", "check"),
    [
        ("short_batch", "work"),
        ("half_blocks", "work"),
        ("half_sequence", "work"),
        ("same_batch", "data"),
        ("zero_norm", "logits"),
    ],
)
def test_lies_are_seen(fault, check):
    checks = run(fault=fault)["checks"]
    assert checks[check]["ok"] is False


def test_logits_that_are_not_finite_are_an_error():
    with pytest.raises(FloatingPointError, match="logits"):
        run("precision=fp32", "model.init_std=3e38")


def test_a_tied_head_does_not_look_dead():
    checks = run("model.tie_embeddings=true", "model.positions=learned")["checks"]
    assert checks["logits"]["ok"]


def test_nothing_is_dropped():
    """Dropout belongs to training: two passes over the same batch agree."""
    context = make_context(make_cell(*SMALL, "model.dropout=0.5"))
    with forward.inference(context) as built:
        loop = forward.ForwardLoop(context, built)
        batch = data.draw_step(context.cell, 0, 0, context.device)[0]
        assert torch.equal(loop.logits(batch), loop.logits(batch))
