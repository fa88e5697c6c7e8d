"""Checks of the work done: tokens, gradients of every parameter, their reduction over ranks, the optimizer's steps."""

import hashlib
import math
from typing import Any

import torch
from torch import Tensor
from torch.distributed.fsdp import FullyShardedDataParallel

from benchrunner.core.arithmetic import PEFT_WORKLOADS
from benchrunner.worker.validity.finding import Facts, Finding, unknown
from benchrunner.worker.validity.probe import reduction_error
from benchrunner.worker.validity.sampling import floating_parameters

MIN_STEPS = 2
"""Applied steps before every parameter must have had a gradient: LoRA's A and adapter prompts have none at first."""
REDUCTION_TOLERANCE = 0.25
"""Of `reduction_error`: a rank that keeps its own gradient has at least 1/3, rounding (fp8 too) below 1/10."""
AMOUNT_TOLERANCE = 0.4
"""Of the elements that a step reduces: padding adds to them, another `accumulation_sync` halves or doubles them."""
STATELESS = frozenset({"sgd"})
"""Optimizers without state."""


def _digest(tokens: Tensor) -> str:
    return hashlib.sha256(tokens.contiguous().cpu().numpy().tobytes()).hexdigest()


def gather(facts: Facts, value: Any) -> list[Any]:
    """Every rank's value."""
    return facts.exchange.gather(value)


def trains(facts: Facts) -> Finding:
    """Every trainable parameter gets a gradient, the optimizer counts its steps, and parameters moved."""
    if facts.optimizer is None:
        return unknown("this workload does not train")
    if facts.num_steps < MIN_STEPS:
        return unknown(f"{facts.num_steps} applied steps are too few to judge, {MIN_STEPS} are needed")
    num_trainable = sum(parameter.requires_grad for _, parameter in floating_parameters(facts.built.decoder))
    expected = f"gradients for {num_trainable} parameters, {facts.num_steps} optimizer steps, parameters moved"
    problem = _dead_gradients(facts) or _idle_optimizer(facts) or _unmoved(facts)
    note = None if facts.probes.norms else f"gradients not seen: {facts.probes.missing}"
    return Finding(ok=problem is None, expected=expected, observed=problem or "all of it", note=note)


def _dead_gradients(facts: Facts) -> str | None:
    """Trainable parameters whose gradient was never finite and non-zero, on norms reduced over ranks."""
    names = list(facts.probes.norms)
    if not names:
        return None
    norms = gather(facts, [facts.probes.norms[name] for name in names])
    squares = (torch.tensor(norms, dtype=torch.float64) ** 2).sum(0)
    alive = (squares.isfinite() & (squares > 0)).any(dim=1).tolist()
    dead = [name for name, lives in zip(names, alive, strict=True) if not lives]
    return f"no gradient for {_some(dead)}" if dead else None


def _idle_optimizer(facts: Facts) -> str | None:
    """Trainable parameters that the optimizer does not hold, has no state for, or has not counted steps of.

    FSDP1 cuts its flat parameters anywhere: of some a rank has no element, and its optimizer nothing to keep.
    """
    optimizer = facts.optimizer
    assert optimizer is not None
    held = {parameter for group in optimizer.param_groups for parameter in group["params"]}
    mine = [item for item in floating_parameters(facts.built.decoder) if item[1].requires_grad]
    foreign = [name for name, parameter in mine if parameter not in held]
    if foreign:
        return f"the optimizer does not hold {_some(foreign)}"
    if facts.cell.axes["optimizer"] in STATELESS:
        return None
    empty = [name for name, parameter in mine if parameter.numel() and not optimizer.state.get(parameter)]
    if empty:
        return f"no optimizer state for {_some(empty)}"
    counts = {float(state["step"]) for state in optimizer.state.values() if "step" in state}
    allowed = range(1, facts.num_steps + 1) if _may_skip(facts) else [facts.num_steps]
    wrong = sorted(count for count in counts if count not in allowed)
    return f"the optimizer counted {wrong[0]:.0f} steps" if wrong else None


def _may_skip(facts: Facts) -> bool:
    """A gradient scaler leaves out steps whose gradients overflow."""
    return str(facts.cell.config.precision.compute_dtype) == "float16"


def _unmoved(facts: Facts) -> str | None:
    """fp32 tensors that stand where they started under Adam; for others at least some matrix elements moved.

    A bf16 weight of 1 never moves: its neighbours are further away than a step. Nor does every fp32 one under SGD. A
    prompt behind a gate near zero hardly moves at first: in finetuning what starts at zero counts too.
    """
    finetunes = facts.cell.axes["workload"] in PEFT_WORKLOADS
    trainable = [
        (name, parameter) for name, parameter in floating_parameters(facts.built.decoder) if parameter.requires_grad
    ]
    moved = {name: _moved(facts, name) for name, _ in trainable if name in facts.initial}
    movable = [
        name
        for name, parameter in trainable
        if name in moved and (parameter.ndim > 1 or (finetunes and not facts.initial[name].any()))
    ]
    any_moved = _agree(facts, any(moved[name] for name in movable))
    if movable and not any_moved:
        return "no matrix moved"
    if facts.cell.axes["optimizer"] in STATELESS or facts.several_ranks:
        return None
    still = [name for name, p in trainable if moved.get(name) is False and p.dtype == torch.float32]
    return f"{_some(still)} did not move" if still else None


def _moved(facts: Facts, name: str) -> bool:
    return not torch.equal(facts.initial[name], facts.final[name])


def _agree(facts: Facts, value: bool) -> bool:
    """Whether it is so on any rank."""
    return any(gather(facts, value)) if facts.several_ranks else value


def gradients_reduced(facts: Facts) -> Finding:
    """Gradients are the mean over ranks: that of mixed batches is the mean of the uniform ones.

    Where the budget has no room for that, the profiled step's collectives must carry every trainable element.
    Replicas (DDP) must also hold the same parameters, bit for bit.
    """
    if not facts.several_ranks:
        return unknown("one rank has nobody to agree with")
    parted = _different_replicas(facts)
    if parted:
        return Finding(ok=False, expected="the same parameters on every replica", observed=f"{_some(parted)} differ")
    if facts.optimizer is None:
        return unknown("this workload has no gradients")
    if wrong := _wrong_amount(facts):
        return Finding(ok=False, expected=wrong[0], observed=wrong[1], note=_traffic(facts))
    if facts.probes.mixed is None:
        return _by_collectives(facts)
    worst = _worst_reduction(facts)
    if worst is None:
        return unknown("the ranks' gradients are too alike to tell")
    error, name = worst
    return Finding(
        ok=error <= REDUCTION_TOLERANCE,
        expected=f"mixed batches give the ranks' mean gradient (error at most {REDUCTION_TOLERANCE})",
        observed=f"error {error:.3f} in {name}",
        note=_traffic(facts),
    )


def _worst_reduction(facts: Facts) -> tuple[float, str] | None:
    """The largest error over parameters and ranks, and whose it is."""
    first, second = facts.probes.uniform
    mixed, world = facts.probes.mixed, facts.context.world_size
    assert mixed is not None
    errors = {}
    for name in first:
        if name in second and name in mixed:
            error = reduction_error(first[name], second[name], mixed[name], world)
            if error is not None:
                errors[name] = error if math.isfinite(error) else math.inf
    mine = max(((error, name) for name, error in errors.items()), default=None)
    found = [item for item in gather(facts, mine) if item is not None]
    return max(found, default=None)


def _different_replicas(facts: Facts) -> list[str]:
    """Parameters of which DDP's ranks hold different values, by samples; scales of 4-bit weights included."""
    if facts.cell.config.strategy.kind != "ddp":
        return []
    mine = {name: _digest(values) for name, values in (facts.final | facts.packed).items()}
    everyone = gather(facts, mine)
    return [name for name in mine if any(other[name] != mine[name] for other in everyone)]


def _wrong_amount(facts: Facts) -> tuple[str, str] | None:
    """What should be reduced in a step and what was, where `accumulation_sync` is another than that of the label.

    Flat parameters (FSDP1) carry what is frozen too, and a compiler's own strategies reduce as they like.
    """
    profile, micro_steps = facts.probes.profile, facts.probes.num_micro_steps
    if profile is None or _reduces_otherwise(facts):
        return None
    kind, times = _reduction(facts), micro_steps if _reduces_every_time(facts) else 1
    elements, needed = profile.collective_elements[kind], facts.built.num_trainable_parameters * times
    if not elements or abs(elements / needed - 1) <= AMOUNT_TOLERANCE:
        return None
    often = "in every micro-step" if times > 1 else "once"
    return f"{kind} of {needed} elements in {micro_steps} micro-steps, {often}", f"{elements} elements"


def _reduction(facts: Facts) -> str:
    return "reduce_scatter" if facts.cell.config.strategy.kind == "fsdp" else "all_reduce"


def _reduces_otherwise(facts: Facts) -> bool:
    is_flat = any(isinstance(module, FullyShardedDataParallel) for module in facts.built.model.modules())
    return is_flat or facts.cell.axes["compile"] == "thunder"


def _reduces_every_time(facts: Facts) -> bool:
    strategy = facts.cell.config.strategy
    return (strategy.accumulation_sync or ("every" if strategy.kind == "fsdp" else "last")) == "every"


def _by_collectives(facts: Facts) -> Finding:
    profile = facts.probes.profile
    if profile is None:
        return unknown(facts.probes.missing)
    kind = _reduction(facts)
    elements, needed = profile.collective_elements[kind], facts.built.num_trainable_parameters
    return Finding(
        ok=elements >= needed if elements or not profile.num_collectives else None,
        expected=f"{kind} of at least {needed} elements in a step",
        observed=f"{elements} elements",
        note=_traffic(facts),
    )


def _traffic(facts: Facts) -> str | None:
    """What the profiled step sent."""
    profile = facts.probes.profile
    if profile is None:
        return None
    kinds = sorted(kind for kind, count in profile.num_collectives.items() if count)
    return ", ".join(f"{kind} ×{profile.num_collectives[kind]} ({profile.collective_elements[kind]})" for kind in kinds)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{names[0]}{more}"
