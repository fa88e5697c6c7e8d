"""One optimizer step: what is done to the gradients between the backward pass and the update."""

from types import SimpleNamespace

import pytest
import torch

from benchrunner.core.heartbeat import read_beat, read_progress
from benchrunner.worker.engines.engine import build
from benchrunner.worker.steps.decoding import Decoding
from benchrunner.worker.steps.training_loop import TrainingLoop
from benchrunner.worker.workloads.forward import ForwardLoop
from benchrunner.worker.workloads.generate import GenerationLoop
from cells import make_cell, make_context

SMALL = ("model.num_layers=1", "model.vocab_size=256", "seq_len=16", "micro_batch_size=2")
PLAIN_SGD = ("optimizer=sgd", "optimizer.lr=1", "optimizer.weight_decay=0")
"""An update is minus the gradient."""


def update_of_one_step(*words):
    """What one optimizer step adds to all parameters, as one vector."""
    context = make_context(make_cell(*SMALL, *PLAIN_SGD, *words))
    loop = TrainingLoop(context, build(context))
    flat = torch.nn.utils.parameters_to_vector
    before = flat(loop.built.decoder.parameters()).detach().clone()
    loop.prepare(range(1))
    loop.step(0)
    return flat(loop.built.decoder.parameters()).detach() - before


@pytest.mark.parametrize("workload", ["train", "forward", "generate"])
def test_each_step_that_is_drawn_is_a_sign_of_life(workload):
    context = make_context(make_cell(*SMALL, f"workload={workload}"))
    beat = context.path.with_name("beat0")
    made = SimpleNamespace(model=torch.nn.Identity()) if workload == "forward" else build(context)
    loops = {
        "train": lambda: TrainingLoop(context, made),
        "forward": lambda: ForwardLoop(context, made),
        "generate": lambda: GenerationLoop(context, Decoding(made, context.cell, context.device)),
    }
    loops[workload]().prepare(range(3, 8))
    assert (read_beat(beat), read_progress(beat)) == (0, 5)


@pytest.mark.parametrize("precision", ["fp32", "fp16-mixed"])
def test_the_clipped_gradient_has_the_norm_asked_for_whatever_the_loss_scale(precision):
    free = update_of_one_step(f"precision={precision}")
    clipped = update_of_one_step(f"precision={precision}", "optimizer.clip_norm=0.125")
    assert free.norm() > 0.5, "clipping would have nothing to do"
    assert clipped.norm().item() == pytest.approx(0.125, rel=1e-3)
    assert torch.cosine_similarity(free, clipped, dim=0).item() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("precision", ["fp32", "fp16-mixed"])
def test_a_gradient_below_the_norm_is_left_alone(precision):
    free = update_of_one_step(f"precision={precision}")
    assert torch.equal(update_of_one_step(f"precision={precision}", "optimizer.clip_norm=1000"), free)


TWO_MICRO_BATCHES = ("micro_batch_size=1", "global_batch_size=2")
REPLAYED = ("compile=inductor", "compile.mode=reduce-overhead")


def gradients(*words, overwritten):
    """Of one step's micro-batches, summed; of a model that is compiled nowhere, whatever the words say.

    `overwritten`: a backward pass writes its gradients where the one before it has, as the replay of a CUDA graph does.
    """
    loop = TrainingLoop(
        make_context(make_cell(*SMALL, *TWO_MICRO_BATCHES, *words)), build(make_context(make_cell(*SMALL)))
    )
    parameters = list(loop.built.decoder.parameters())
    for parameter in parameters if overwritten else ():
        place = torch.zeros_like(parameter)
        parameter.register_hook(lambda new, place=place: place.copy_(new).detach())
    loop.prepare(range(1))
    loop.backward(0)
    return torch.nn.utils.parameters_to_vector(parameter.grad for parameter in parameters)


def test_gradients_that_the_next_replay_of_a_graph_overwrites_are_summed():
    true = gradients(overwritten=False)
    assert not torch.equal(gradients(overwritten=True), true), "nothing was overwritten"
    assert torch.equal(gradients(*REPLAYED, overwritten=True), true)
