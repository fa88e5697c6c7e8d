"""Is a step's update the one that the label states: two more are applied, and their elements computed again in fp64.

It comes last of all checks: parameters have made a step more afterwards.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchrunner.core.schema import OptimizerConfig
from benchrunner.worker.steps.training_loop import TrainingLoop
from benchrunner.worker.validity.finding import Facts, Finding, unknown
from benchrunner.worker.validity.questions import JUDGED_STEPS, STEP, affordable, affordable_micro_steps
from benchrunner.worker.validity.sampling import floating_parameters, local, sample

TOLERANCE = 5e-4
"""Of an update's norm, beyond what rounding the parameter can do: fp32 arithmetic has 1e-5, a decay left out 2e-3."""
CLIPPED_TOLERANCE = 0.02
"""Where 16-bit gradients are clipped: their norm, and so what all are multiplied with, is rounded to that dtype."""
STATE_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.02, torch.float16: 4e-3}
"""Of a moment's norm, by the dtype that it is kept in."""
VISIBLE = 4.0
"""An update shows where it is so many times the parameter's spacing."""
FIRST, SECOND, EPSILON = 0.9, 0.999, 1e-8
"""Adam's decay rates of its moments and what keeps it from dividing by zero (arXiv:1412.6980)."""
MOST_STEPS = 8
"""Tried until one is not skipped: each that overflows halves the loss scale."""
CLIP_EPSILON = 1e-6
"""What torch and Fabric add to a norm that they divide by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled:
    """Elements of a parameter, all fp64: its value, gradient (unscaled, clipped) and moments, and the steps so far."""

    value: Tensor
    gradient: Tensor
    moments: tuple[Tensor, ...] = ()
    num_steps: int = 0


Errors = tuple[dict[str, float], dict[str, float]]
"""Parameter → error of its update where that shows, and of its moments."""

Rule = Callable[[Sampled, OptimizerConfig], tuple[Tensor, tuple[Tensor, ...]]]
"""The value and the moments after a step."""


def adamw(before: Sampled, options: OptimizerConfig) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Adam with decoupled weight decay (arXiv:1711.05101)."""
    zero = torch.zeros_like(before.value)
    first, second = before.moments or (zero, zero)
    first = FIRST * first + (1 - FIRST) * before.gradient
    second = SECOND * second + (1 - SECOND) * before.gradient**2
    steps = before.num_steps + 1
    direction = (first / (1 - FIRST**steps)) / ((second / (1 - SECOND**steps)).sqrt() + EPSILON)
    return before.value * (1 - options.lr * options.weight_decay) - options.lr * direction, (first, second)


def sgd(before: Sampled, options: OptimizerConfig) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Gradient descent, the decay added to the gradient."""
    return before.value - options.lr * (before.gradient + options.weight_decay * before.value), ()


RULES: dict[str, Rule] = {"adamw": adamw, "sgd": sgd, "paged-adamw": adamw}
"""Optimizer → its rule."""
MOMENTS = (("exp_avg", "exp_avg_sq"), ("state1", "state2"))
"""What torch and bitsandbytes call them."""


def optimizer(facts: Facts) -> Finding:
    """Applied steps equal the stated rule: class, learning rate, betas, decay, clipping, loss scale."""
    loop, name = facts.loop, facts.cell.axes["optimizer"]
    if loop is None:
        return unknown("this workload does not train")
    if name not in RULES:
        return unknown(f"the rule of optimizer={name} is not known here")
    if affordable(facts, JUDGED_STEPS)[0] < 1:
        return unknown("the budget has no room for a step")
    judged: list[Errors] = []
    for _ in range(min(max(1, affordable_micro_steps(facts)), MOST_STEPS)):
        loop.gradients_of_own_data(STEP, 1)
        before = _sampled(facts, loop)
        loop.apply()
        if before is not None:
            judged.append(_judged(facts, loop, before))
        if _kept_gradients(facts):
            return Finding(ok=False, expected="no gradient left after an update", observed="they stay, and pile up")
        if len(judged) == JUDGED_STEPS:
            break
    if not judged:
        return unknown("gradients are not finite under the loss scale: every step was skipped")
    return _finding(facts, *(_worst(parts) for parts in zip(*judged, strict=True)))


def _kept_gradients(facts: Facts) -> bool:
    """Whether an update left something for the next step to add to."""
    gradients = (parameter.grad for _, parameter in floating_parameters(facts.built.decoder))
    mine = any(gradient is not None and bool(local(gradient).any()) for gradient in gradients)
    return any(facts.exchange.gather(mine))


def _worst(of_steps: Sequence[Mapping[str, float]]) -> dict[str, float]:
    names = {name for one in of_steps for name in one}
    return {name: max(one[name] for one in of_steps if name in one) for name in names}


def _sampled(facts: Facts, loop: TrainingLoop) -> dict[str, Sampled] | None:
    """Everything that the rule needs, before the step; None if a gradient is not finite."""
    scale, trained = loop.loss_scale(), _trained(facts)
    norm = _gradient_norm(facts, trained) / scale
    if not math.isfinite(norm):
        return None
    clip = facts.cell.config.optimizer.clip_norm
    factor = (1.0 if clip is None else min(1.0, clip / (norm + CLIP_EPSILON))) / scale
    found = {}
    for name, parameter in trained.items():
        assert parameter.grad is not None
        state = loop.optimizer.state.get(parameter, {})
        found[name] = Sampled(
            value=sample(parameter).double(),
            gradient=sample(parameter.grad).double() * factor,
            moments=_moments(state),
            num_steps=int(state.get("step", 0)),
        )
    return found


def _trained(facts: Facts) -> dict[str, nn.Parameter]:
    """Parameters that have a gradient and elements on this rank."""
    return {
        name: parameter
        for name, parameter in floating_parameters(facts.built.decoder)
        if parameter.grad is not None and local(parameter).numel()
    }


def _moments(state: dict[str, Tensor]) -> tuple[Tensor, ...]:
    names = next((names for names in MOMENTS if names[0] in state), ())
    return tuple(sample(state[name]).double() for name in names)


def _gradient_norm(facts: Facts, trained: dict[str, nn.Parameter]) -> float:
    """Of all gradients, over all ranks where each has a part."""
    square = torch.zeros((), dtype=torch.float64, device=facts.context.device)
    for parameter in trained.values():
        assert parameter.grad is not None
        square += torch.linalg.vector_norm(local(parameter.grad), dtype=torch.float32).double() ** 2
    is_part = facts.several_ranks and facts.cell.config.strategy.kind == "fsdp"
    return math.sqrt(sum(facts.exchange.gather(float(square))) if is_part else float(square))


def _judged(facts: Facts, loop: TrainingLoop, before: dict[str, Sampled]) -> Errors:
    options, rule = facts.cell.config.optimizer, RULES[facts.cell.axes["optimizer"]]
    parameters = dict(floating_parameters(facts.built.decoder))
    updates, states = {}, {}
    for name, sampled in before.items():
        parameter = parameters[name]
        wanted, moments = rule(sampled, options)
        error = _update_error(sampled.value, sample(parameter).double(), wanted, parameter.dtype)
        if error is not None:
            updates[name] = error
        found = _moments(loop.optimizer.state.get(parameter, {}))
        if moments:
            states[name] = _state_error(found, moments, loop.optimizer.state.get(parameter, {}))
    return updates, states


def _update_error(before: Tensor, after: Tensor, wanted: Tensor, dtype: torch.dtype) -> float | None:
    """Norm of what is wrong with an update beyond rounding ÷ the update's, where it shows; None where none does."""
    spacing = _spacing(torch.maximum(before.abs(), wanted.abs()), dtype)
    update = wanted - before
    shows = update.abs() >= VISIBLE * spacing
    if not bool(shows.any()):
        return None
    wrong = ((after - wanted).abs() - spacing).clamp(min=0)[shows]
    return _finite(float(wrong.norm() / update[shows].norm()))


def _spacing(values: Tensor, dtype: torch.dtype) -> Tensor:
    """The distance of neighbours in a dtype."""
    info = torch.finfo(dtype)
    exponents = values.clamp(min=info.tiny).log2().floor()
    return info.eps * 2.0**exponents


def _state_error(found: tuple[Tensor, ...], wanted: tuple[Tensor, ...], state: dict[str, Tensor]) -> float:
    """The largest error of a moment, in units of what its dtype allows."""
    if len(found) != len(wanted):
        return math.inf
    kept_in = next(state[name].dtype for names in MOMENTS for name in names if name in state)
    errors = [
        float((ours - theirs).norm()) / max(float(theirs.norm()), torch.finfo(torch.float32).tiny)
        for ours, theirs in zip(found, wanted, strict=True)
    ]
    return _finite(max(errors) / STATE_TOLERANCE.get(kept_in, STATE_TOLERANCE[torch.bfloat16]))


def _finite(value: float) -> float:
    return value if math.isfinite(value) else 1e9


def _kept_in_fp32(facts: Facts) -> bool:
    return str(facts.cell.config.precision.param_dtype) == "float32"


def _finding(facts: Facts, updates: dict[str, float], states: dict[str, float]) -> Finding:
    """The verdict over all ranks: the same on each."""
    error, name = max(((error, name) for name, error in updates.items()), default=(-1.0, ""))
    state = max(states.values(), default=0.0)
    error, state = facts.exchange.most(error, state)
    if error < 0 and not states:
        return unknown(f"no update of {facts.cell.axes['optimizer']} is as large as its parameter's rounding")
    options = facts.cell.config.optimizer
    stated = f"{facts.cell.axes['optimizer']}, lr {options.lr:g}, decay {options.weight_decay:g}"
    clip = "" if options.clip_norm is None else f", clipped to {options.clip_norm:g}"
    limit = TOLERANCE if options.clip_norm is None or _kept_in_fp32(facts) else CLIPPED_TOLERANCE
    return Finding(
        ok=error <= limit and state <= 1,
        expected=f"the update of {stated}{clip}: within {limit:g}, moments within 1 of what their dtype allows",
        observed=f"update off by {max(error, 0):.2g}, moments by {state:.2g}",
        note=f"largest in {name}" if name else None,
        errors={"update": max(error, 0.0), "moments": state},
    )
