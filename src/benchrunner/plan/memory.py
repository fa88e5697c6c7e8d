"""Peak memory of one device from arithmetic: what rests there, and what a step has on top of it."""

from dataclasses import dataclass, replace

from benchrunner.core import arithmetic
from benchrunner.core.cell import Cell, Sizes
from benchrunner.core.schema import Config
from benchrunner.plan.inference_memory import walk_forward_pass, walk_generation
from benchrunner.plan.kept import Model
from benchrunner.plan.live_memory import Tape
from benchrunner.plan.micro_batches import longest_sizes
from benchrunner.plan.training_memory import walk_training_step

WORKSPACE_BYTES = 66 * 2**20
"""cuBLAS keeps 32 MiB on Hopper for each of forward and backward pass, and the batches (worker/tape.py)."""
INFERENCE_WORKSPACE_BYTES = 33 * 2**20
TUNING_BYTES = 60 * 2**20
"""Inductor times kernels that it has just made, and overwrites the device's cache before each: the L2 of an H200."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peak:
    """The most that a device holds at once."""

    total_bytes: int
    phase: str
    terms: dict[str, int]
    """Category → bytes at that moment; those that are not zero."""


def peak_memory(cell: Cell, *, on_cpu: bool = False) -> Peak:
    """The predicted peak of the allocator on one device, in the steady state."""
    return peak_of(cell.config, longest_sizes(cell), on_cpu=on_cpu)


def peak_of(config: Config, sizes: Sizes, block_bytes: int | None = None, *, on_cpu: bool = False) -> Peak:
    """The same of a configuration and its sizes; `block_bytes` is what a block keeps, where that is known better."""
    if config.workload.name == "generate":
        sizes = replace(sizes, seq_len=config.generate.prompt_length)
    model, tape = Model(config, sizes, on_cpu=on_cpu), Tape()
    if block_bytes is not None:
        model.block = replace(model.block, saved=float(block_bytes))
    _rest(model, tape)
    if model.trains:
        walk_training_step(model, tape)
    elif config.workload.name == "generate":
        walk_generation(model, tape)
    else:
        walk_forward_pass(model, tape)
    terms = {name: round(value) for name, value in tape.at_peak.items() if value >= 1}
    return Peak(total_bytes=round(tape.peak), phase=tape.peak_phase, terms=terms)


def _rest(model: Model, tape: Tape) -> None:
    """What is there between two steps."""
    config = model.config
    scales = arithmetic.scale_bytes(config.model, config.precision)
    weights = arithmetic.resident_weight_bytes(config.model, config.precision) - scales
    weights += arithmetic.num_added_parameters(config.model, config.workload) * model.width.stored
    tape.take("parameters", weights / model.ranks + scales)
    if not model.on_cpu:
        tape.take("workspaces", WORKSPACE_BYTES if model.trains else INFERENCE_WORKSPACE_BYTES)
        tape.take("workspaces", TUNING_BYTES if model.is_tuned_at_its_peak else 0.0)
    if not model.trains:
        return
    trained = arithmetic.num_trainable_parameters(config.model, config.workload)
    state = arithmetic.optimizer_state_bytes_per_parameter(config.optimizer, model.width.stored, on_device=True)
    tape.take("optimizer", trained * state / model.ranks)
    if model.has_buckets:  # the micro-steps that reduce nothing keep gradients of their own beside the buckets
        tape.take("gradients", trained * model.width.stored * (2 if model.accumulates else 1))
    elif model.accumulates:
        tape.take("gradients", trained * model.width.stored / model.ranks)
