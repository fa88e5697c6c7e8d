"""The training loop: forward, backward and optimizer step on a fresh synthetic batch every step."""

import math

from benchrunner.core.rank_result import Choices, RankResult
from benchrunner.worker.axes.attention import attention_backend, chosen_backend
from benchrunner.worker.context import Context
from benchrunner.worker.engines.engine import build
from benchrunner.worker.measure.window import Steps, measure
from benchrunner.worker.steps.counts import counts_of_lengths
from benchrunner.worker.steps.training_loop import TrainingLoop
from benchrunner.worker.validity import checks
from benchrunner.worker.validity.sampling import sample_parameters
from benchrunner.worker.workloads.result import rank_result


def run(context: Context) -> RankResult:
    """Train as the cell says and return the rank's result (keys: docs/metrics.md).

    Raises:
        FloatingPointError: a step's loss is not finite.
    """
    with attention_backend(context.cell):
        context.phase("build")
        loop = TrainingLoop(context, build(context))
        initial = sample_parameters(loop.built.decoder)
        window = measure(context, Steps(prepare=loop.prepare, run=loop.step))
        losses = loop.mean_losses()
        attention = chosen_backend(context.cell, context.device)
        _require_finite(losses, loop.own_losses())
        choices: Choices = {"attention": attention, **loop.choices()}
        result = rank_result(context, loop.built, window) | {"losses": losses, "choices": choices}
        result |= counts_of_lengths(context.cell, loop.prepared)
        checks.check_training(loop, result, initial)
    return result


def _require_finite(losses: list[float], own: list[float]) -> None:
    """A rank whose own loss was still finite when the mean no longer was is not the one that began it.

    Raises:
        FloatingPointError: a step's loss is not finite.
        RuntimeError: that of another rank is not.
    """
    bad = next((step for step, loss in enumerate(losses) if not math.isfinite(loss)), None)
    if bad is None:
        return
    if math.isfinite(own[bad]):
        raise RuntimeError(f"peer failure: the loss of step {bad} is {losses[bad]}, and finite on this rank")
    raise FloatingPointError(f"the loss of step {bad} is {losses[bad]}")
