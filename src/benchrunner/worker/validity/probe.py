"""Probe steps: forward and backward without optimizer, outside the window, to see what a step really does."""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from benchrunner.core.cell import Cell
from benchrunner.core.checks import LEAST_BUDGET_S, budget_s
from benchrunner.worker.context import Context
from benchrunner.worker.steps import data
from benchrunner.worker.validity.exchange import Exchange
from benchrunner.worker.validity.profiled import StepProfile, profiled
from benchrunner.worker.validity.profiled_sample import SampleProfile
from benchrunner.worker.validity.sampling import Samples, gradient_norms, sample_gradients

if TYPE_CHECKING:
    from benchrunner.worker.steps.training_loop import TrainingLoop

NUM_PROBES = 3
MAX_MICRO_STEPS = 2
"""Micro-batches of a probe: the second shows what accumulation does."""

FEW_TOKENS = 8
"""Distinct tokens of the second batch: so few that its gradients are far from those of random tokens everywhere."""

ProbeBatches = Sequence[Tensor]


@dataclass(slots=True, kw_only=True)
class Probes:
    """What the probe steps left on this rank."""

    missing: str = "no step was profiled: the budget has no room for one"
    """Why there is no profile, where there is none."""
    num_micro_steps: int = 0
    sample: SampleProfile | None = None
    """Of `generate`: `profile` is one of its decodes."""
    profile: StepProfile | None = None
    """Of the first probe."""
    num_tokens: int = 0
    """Positions that this rank put through the model in the profiled probe."""
    norms: dict[str, list[float]] = field(default_factory=dict)
    """Trainable parameter → this rank's gradient norm in every probe."""
    gathered_blocks: tuple[int, int] = (0, 0)
    """Blocks whose whole parameters were in memory right after the forward pass, of how many."""
    uniform: list[Samples] = field(default_factory=list)
    """Gradients when every rank has the first batch, and when every rank has the second."""
    mixed: Samples | None = None
    """Gradients when even ranks have the first batch and odd ranks the second."""

    def forget(self, failure: str, num_done: int = 0) -> None:
        """A probe failed on some rank, and what it left is not the same on all: only the `num_done` before it stand."""
        self.missing, self.mixed, self.uniform = failure, None, self.uniform[:num_done]
        self.norms = {name: norms[:num_done] for name, norms in self.norms.items() if num_done}
        if num_done == 0:
            self.profile, self.sample, self.num_tokens, self.gathered_blocks = None, None, 0, (0, 0)

    def take_sample(self, cell: Cell) -> None:
        """The step that other checks look at is a decode of the sample, or its prefill where there is no decode."""
        if self.sample is not None:
            a_sequence = 1 if self.sample.decode else cell.config.generate.prompt_length
            self.num_tokens = cell.sizes.micro_batch_size * a_sequence
            self.profile = self.sample.decode or self.sample.prefill


def run_probes(loop: "TrainingLoop", step_times_s: Sequence[float], exchange: Exchange) -> Probes:
    """As many probes as the budget allows: one of them profiled; with several ranks two more with other batches.

    All ranks hear of each probe whether it succeeded everywhere before any of them enters the next.
    """
    accumulation_steps = loop.context.cell.sizes.accumulation_steps
    step_s, within_s = agreed_budget(step_times_s, exchange)
    steps, micro_steps = plan_probes(step_s, accumulation_steps, within_s)
    probes = Probes(num_micro_steps=micro_steps)
    device = loop.context.device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):  # whoever asks next draws as the run would
        for num_done, (name, probe) in enumerate(_planned(loop, probes, steps)):
            failure = exchange.agree(name, probe)
            if failure is not None:  # what a probe meets is no verdict on the measurement
                probes.forget(failure, num_done)
                loop.optimizer.zero_grad(set_to_none=True)
                break
    return probes


def _planned(loop: "TrainingLoop", probes: Probes, steps: int) -> list[tuple[str, Callable[[], None]]]:
    """Name → probe, in their order."""
    context, micro_steps = loop.context, probes.num_micro_steps
    if steps == 0:
        return []
    first = data.draw_step(context.cell, 0, 0, context.device)[:micro_steps]
    planned = [("the profiled probe", lambda: _profile(loop, probes, first))]
    if context.world_size > 1 and steps == NUM_PROBES:
        second = [torch.where(batch < 0, batch, batch % FEW_TOKENS) for batch in first]
        planned += [
            ("the second probe", lambda: _repeat(loop, probes, second)),
            ("the mixed probe", lambda: _mix(loop, probes, first, second)),
        ]
    return planned


def _profile(loop: "TrainingLoop", probes: Probes, batches: ProbeBatches) -> None:
    before = len(loop.consumed)
    probes.profile = profiled(lambda: _forward_backward(loop, batches, probes), loop.context.device)
    probes.num_tokens = sum(tokens.numel() for tokens, _ in loop.consumed[before:])
    probes.uniform.append(_collect(loop, probes))


def _repeat(loop: "TrainingLoop", probes: Probes, batches: ProbeBatches) -> None:
    _forward_backward(loop, batches)
    probes.uniform.append(_collect(loop, probes))


def _mix(loop: "TrainingLoop", probes: Probes, even: ProbeBatches, odd: ProbeBatches) -> None:
    _forward_backward(loop, odd if loop.context.rank % 2 else even)
    probes.mixed = _collect(loop, probes)


def profile_once(run: Callable[[], int], context: Context, step_times_s: Sequence[float], exchange: Exchange) -> Probes:
    """One profiled step of a workload without gradients; `run` returns the tokens that it processed."""
    probes = Probes(num_micro_steps=1)
    step_s, within_s = agreed_budget(step_times_s, exchange)
    if step_s > within_s:
        return probes
    counts: list[int] = []

    def probe() -> None:
        probes.profile = profiled(lambda: counts.append(run()), context.device)
        probes.num_tokens = sum(counts)

    failure = exchange.agree("the profiled probe", probe)
    if failure is not None:
        probes.forget(failure)
    return probes


def agreed_budget(step_times_s: Sequence[float], exchange: Exchange) -> tuple[float, float]:
    """Seconds of a step, the slowest rank's median, and of the budget: all ranks must decide alike."""
    with exchange.topic("the budget"):
        mine = statistics.median(step_times_s or [0.0]), budget_s(sum(step_times_s))
        medians, budgets = zip(*exchange.gather(mine), strict=True)
    return max(medians), max(budgets)


def plan_probes(step_s: float, num_micro_steps: int, within_s: float = LEAST_BUDGET_S) -> tuple[int, int]:
    """How many probes of how many micro-steps fit into the budget; (0, 0) when not even one does."""
    a_micro_step_s = step_s / max(num_micro_steps, 1)
    for probes, micro_steps in ((NUM_PROBES, MAX_MICRO_STEPS), (NUM_PROBES, 1), (1, 1)):
        if probes * micro_steps * a_micro_step_s <= within_s:
            return probes, min(micro_steps, num_micro_steps)
    return 0, 0


def _forward_backward(loop: "TrainingLoop", batches: ProbeBatches, probes: Probes | None = None) -> None:
    """The loop's own accumulation, with the same random state for every probe so that dropout draws the same."""
    torch.manual_seed(0)
    if probes is None:
        loop.accumulate(batches)
    else:
        loop.accumulate(batches, after_forward=lambda: _note_gathered(loop, probes))


def _note_gathered(loop: "TrainingLoop", probes: Probes) -> None:
    blocks = getattr(loop.built.decoder, "blocks", ())
    probes.gathered_blocks = (sum(_is_gathered(block) for block in blocks), len(blocks))


def _is_gathered(block: torch.nn.Module) -> bool:
    """Whether a block that FSDP shards holds its whole parameters: they are plain tensors then."""
    return all(not isinstance(parameter, DTensor) for parameter in block.parameters())


def _collect(loop: "TrainingLoop", probes: Probes) -> Samples:
    """Norms into the probes, samples returned, gradients dropped."""
    decoder = loop.built.decoder
    for name, norm in gradient_norms(decoder).items():
        probes.norms.setdefault(name, []).append(norm)
    samples = sample_gradients(decoder)
    loop.optimizer.zero_grad(set_to_none=True)
    return samples


def mixing_weights(world_size: int) -> tuple[float, float]:
    """Shares of the ranks that have the first batch and the second one in the mixed probe."""
    odd = world_size // 2
    return (world_size - odd) / world_size, odd / world_size


def reduction_error(first: Tensor, second: Tensor, mixed: Tensor, world_size: int) -> float | None:
    """How far the mixed gradient is from the ranks' mean, in units of the distance between the uniform ones.

    0: reduced; a rank that kept its own gradient has the other ranks' share (1/2 for two). Null where the uniform
    gradients are too close to tell.
    """
    weight, other = mixing_weights(world_size)
    distance = float((first - second).norm())
    if distance <= 0.05 * max(float(first.norm()), float(second.norm())) or not math.isfinite(distance):
        return None
    return float((mixed - weight * first - other * second).norm()) / distance
