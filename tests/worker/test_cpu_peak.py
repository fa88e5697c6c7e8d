"""The predicted peak of a training step on a CPU, against what torch allocates in one."""

from itertools import accumulate

import pytest
from torch.profiler import ProfilerActivity, profile

from benchrunner.plan.memory import peak_memory
from benchrunner.worker.engines.engine import build
from benchrunner.worker.steps.training_loop import TrainingLoop
from cells import make_cell, make_context

SMALL = ("model.num_layers=2", "micro_batch_size=8", "seq_len=64")


def measured_peak(cell):
    """Bytes of parameters, optimizer state and what the second step has on top at most."""
    context = make_context(cell)
    loop = TrainingLoop(context, build(context))
    loop.prepare(range(2))
    loop.step(0)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        loop.step(1)
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    changes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    states = [tensor for state in loop.optimizer.state.values() for tensor in state.values()]
    rest = sum(tensor.nbytes for tensor in [*loop.built.decoder.parameters(), *states])
    return rest + max(accumulate(changes))


@pytest.mark.parametrize(
    "words",
    [
        ("precision=bf16",),
        ("precision=fp32",),
        ("precision=bf16", "model.norm=layernorm"),
        pytest.param(("precision=bf16-mixed",), marks=pytest.mark.slow),
        pytest.param(("precision=bf16", "activation_checkpointing=full"), marks=pytest.mark.slow),
    ],
    ids="-".join,
)
def test_a_norm_without_a_kernel_keeps_what_it_computes_with(words):
    cell = make_cell(*SMALL, *words)
    assert peak_memory(cell, on_cpu=True).total_bytes == pytest.approx(measured_peak(cell), rel=0.02)
