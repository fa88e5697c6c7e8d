"""Is the model in the mode that its workload means: training with the label's dropout, or inference without."""

import math
from collections import Counter
from collections.abc import Iterator

import torch
from torch import nn

from benchrunner.worker.model.layers import Attention
from benchrunner.worker.steps import data
from benchrunner.worker.steps.training_loop import TrainingLoop
from benchrunner.worker.validity.finding import Facts, Finding, unknown
from benchrunner.worker.validity.questions import MOST_FEW, STEP, affordable
from benchrunner.worker.validity.sampling import sample_gradients

NUM_ASKED = 2
DIFFERING = 0.1
"""Of the spread that dropout gives: by so much gradients differ at least. Kernels that add in any order give less."""
LEAST = 1e-30


def mode(facts: Facts) -> Finding:
    """Every module is in training mode, or none; where calls show, values are dropped as often as the label says."""
    if facts.cell.axes["compile"] == "thunder":
        return unknown("thunder's programs have taken the modules' place")
    trains = facts.optimizer is not None
    modules = list(facts.built.decoder.modules())
    training = sum(module.training for module in modules)
    told, found = _told_dropouts(facts), set(_kept_dropouts(modules))
    problem = None
    if training != (len(modules) if trains else 0):
        problem = f"{training} of {len(modules)} modules in training mode"
    elif found != told:
        problem = f"dropout {_list(found)}"
    elif trains:
        problem = _missing_calls(facts) or _same_drops(facts)
    return Finding(
        ok=problem is None,
        expected=f"{'all' if trains else 'no'} modules in training mode, dropout {_list(told)}",
        observed=problem or "so they are",
        note=None if _shows_calls(facts) else "calls of dropout do not show: objects and what they do were looked at",
    )


def _told_dropouts(facts: Facts) -> set[float]:
    """The probabilities that the label knows."""
    config = facts.cell.config
    told = {float(config.model.dropout)}
    return told | {float(config.workload.lora_dropout)} if config.workload.name == "lora" else told


def _kept_dropouts(modules: list[nn.Module]) -> Iterator[float]:
    for module in modules:
        if isinstance(module, nn.Dropout):
            yield float(module.p)
        elif isinstance(module, Attention):
            yield float(module.dropout)


def _shows_calls(facts: Facts) -> bool:
    return facts.cell.axes["compile"] == "eager" and facts.probes.profile is not None


def _missing_calls(facts: Facts) -> str | None:
    """Probabilities of which the profiled step dropped less often than a forward pass does."""
    profile = facts.probes.profile
    if not _shows_calls(facts) or profile is None:
        return None
    seen = Counter(profile.dropouts)
    if facts.cell.config.attention != "explicit":
        seen.update(call.dropout for call in profile.attention if call.dropout)
    wanted = _wanted_calls(facts)
    few = [p for p, count in wanted.items() if seen[p] < count]
    strange = [p for p in seen if p not in wanted]
    if few:
        return f"{seen[few[0]]} of {wanted[few[0]]} calls drop {few[0]:g}"
    return f"{seen[strange[0]]} calls drop {strange[0]:g}" if strange else None


def _wanted_calls(facts: Facts) -> Counter[float]:
    """Probability → calls of a forward pass: after the embedding, attention, both halves of a block; LoRA's inputs."""
    config, wanted = facts.cell.config, Counter[float]()
    calls = facts.probes.num_micro_steps
    if config.model.dropout:
        wanted[float(config.model.dropout)] += calls * (1 + 3 * config.model.num_layers)
    if config.workload.name == "lora" and config.workload.lora_dropout:
        wanted[float(config.workload.lora_dropout)] += calls * config.model.num_layers
    return wanted


def _same_drops(facts: Facts) -> str | None:
    """Asked twice with one batch, every rank drops other values, in a compiled graph too.

    Gradients tell: a mask of probability p gives each value a spread of √(p / (1 − p)).
    """
    most, loop = max(_told_dropouts(facts)), facts.loop
    num_steps, num_micro = affordable(facts, NUM_ASKED)
    if not most or loop is None or num_steps < NUM_ASKED:
        return None
    num_consumed = len(loop.consumed)
    answers = [_answer(facts, loop, min(num_micro, MOST_FEW)) for _ in range(NUM_ASKED)]
    del loop.consumed[num_consumed:]
    (loss, first), (_, second) = answers
    apart = math.dist(first, second) / max(math.hypot(*first), LEAST)
    of_ranks = facts.exchange.gather((apart if first else math.inf, loss))  # flat parts may hold nothing that trains
    if min(one for one, _ in of_ranks) < DIFFERING * math.sqrt(most / (1 - most)):
        return "the same values dropped every time"
    losses = {one for _, one in of_ranks}
    # A finetuning method's own dropout hardly moves the loss of so few steps.
    if facts.cell.config.model.dropout and len(losses) < len(of_ranks):
        return "the same values dropped on every rank"
    return None


def _answer(facts: Facts, loop: TrainingLoop, num_micro: int) -> tuple[float, list[float]]:
    """This rank's loss of the first rank's first batches, and some elements of all gradients."""
    batches = data.draw_step(facts.cell, STEP, 0, facts.context.device)[:num_micro]
    loss = float(loop.accumulate(batches))
    gradients = sample_gradients(facts.built.decoder)
    loop.optimizer.zero_grad(set_to_none=True)
    return loss, torch.cat([torch.empty(0), *gradients.values()]).tolist()


def _list(values: set[float]) -> str:
    return ", ".join(f"{value:g}" for value in sorted(values))
