"""Checkpointing changes what is kept and recomputed, never what is computed."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchrunner.worker.axes.activation_checkpointing import KEPT_OPERATIONS
from benchrunner.worker.engines.engine import build
from benchrunner.worker.steps.training_loop import TrainingLoop
from cells import make_cell, make_context

FEW = ("model.num_layers=2", "model.vocab_size=256", "seq_len=32", "micro_batch_size=2", "precision=fp32")
PER_OP = ("activation_checkpointing=selective", "activation_checkpointing.every=per_op")


class CountOperations(TorchDispatchMode):
    """How often each operation ran."""

    def __init__(self):
        super().__init__()
        self.counts = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.counts[function] = self.counts.get(function, 0) + 1
        return function(*args, **(kwargs or {}))


def gradients(*words):
    """Loss, gradients and operation counts of one backward pass."""
    context = make_context(make_cell(*FEW, *words))
    loop = TrainingLoop(context, build(context))
    loop.prepare(range(1))
    with CountOperations() as counted:
        loss = loop.accumulate(loop._batches.pop(0))
    names = [name.replace("_checkpoint_wrapped_module.", "") for name, _ in loop.built.decoder.named_parameters()]
    grads = [parameter.grad for parameter in loop.built.decoder.parameters()]
    return loss, dict(zip(names, grads, strict=True)), counted.counts


def assert_same(left, right):
    assert torch.equal(left[0], right[0])
    assert left[1].keys() == right[1].keys()
    for name, gradient in left[1].items():
        torch.testing.assert_close(gradient, right[1][name], msg=name)


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["model.norm=layernorm", "model.mlp=gelu", "model.bias=true", "model.positions=learned"],
        ["attention=explicit"],
        ["model.num_kv_heads=1"],
    ],
)
def test_per_operation_equals_none_and_repeats_no_product(words):
    none, per_op, full = (
        gradients(*words),
        gradients(*PER_OP, *words),
        gradients("activation_checkpointing=full", *words),
    )
    assert_same(none, per_op)
    assert_same(none, full)
    for operation in KEPT_OPERATIONS:
        assert per_op[2].get(operation, 0) == none[2].get(operation, 0), operation
    products = [one for one in KEPT_OPERATIONS if one in none[2]]
    assert any(full[2][one] > none[2][one] for one in products), "full checkpointing repeats them"
    assert sum(per_op[2].values()) > sum(none[2].values()), "something is recomputed"


def test_per_operation_composes_with_dropout():
    torch.manual_seed(1)
    none = gradients("model.dropout=0.2")
    torch.manual_seed(1)
    per_op = gradients(*PER_OP, "model.dropout=0.2")
    assert_same(none, per_op)


@pytest.mark.slow
def test_compiled_per_operation_equals_eager():
    eager, compiled = gradients(), gradients(*PER_OP, "compile=inductor")
    torch.testing.assert_close(eager[0], compiled[0])
    for name, gradient in eager[1].items():
        torch.testing.assert_close(gradient, compiled[1][name], atol=1e-5, rtol=1e-3, msg=name)
