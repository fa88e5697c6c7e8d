"""Peak memory of one device from arithmetic: what rests there, and what a step has on top of it."""

from dataclasses import dataclass, replace

from benchrunner.core import arithmetic
from benchrunner.core.cell import Cell, Sizes
from benchrunner.core.schema import Config
from benchrunner.plan.gathered_memory import gather_first, gathered_bytes
from benchrunner.plan.kept import Model
from benchrunner.plan.live_memory import Tape
from benchrunner.plan.micro_batches import longest_sizes
from benchrunner.plan.training_memory import walk_training_step

WORKSPACE_BYTES = 66 * 2**20
"""cuBLAS keeps 32 MiB on Hopper for each of forward and backward pass, and the batches (worker/tape.py)."""
INFERENCE_WORKSPACE_BYTES = 33 * 2**20


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
    model, tape = Model(config, sizes, on_cpu=on_cpu), Tape()
    if block_bytes is not None:
        model.block = replace(model.block, saved=float(block_bytes))
    _rest(model, tape)
    if model.trains:
        walk_training_step(model, tape)
    elif config.workload.name == "generate":
        _decode(model, tape)
    else:
        _forward_pass(model, tape)
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
    if not model.trains:
        return
    trained = arithmetic.num_trainable_parameters(config.model, config.workload)
    state = arithmetic.optimizer_state_bytes_per_parameter(config.optimizer, model.width.stored, on_device=True)
    tape.take("optimizer", trained * state / model.ranks)
    if model.has_buckets:  # the micro-steps that reduce nothing keep gradients of their own beside the buckets
        tape.take("gradients", trained * model.width.stored * (2 if model.accumulates else 1))
    elif model.accumulates:
        tape.take("gradients", trained * model.width.stored / model.ranks)


# --- without a backward pass


def _forward_pass(model: Model, tape: Tape) -> None:
    """One block's working set, then all logits."""
    block = model.block
    tape.phase = "forward"
    if model.is_fsdp:
        tape.take("temporaries", block.input)  # what the embedding found
        _gather_units(model, tape)
        tape.drop("communication", gathered_bytes(model, block.parameters))
        tape.drop("temporaries", block.input)
    working = model.copies(block.parameters) + _block_working_set(model)
    tape.take("temporaries", working)
    tape.drop("temporaries", working)
    tape.phase = "loss"
    tape.take("temporaries", 2 * block.input)
    tape.take("logits", float(model.tokens * model.shape.vocab_size * model.width.activation))


def _block_working_set(model: Model) -> float:
    """Bytes of a block without gradients where it is widest: a compiler keeps no product that it can fuse.

    Residual stream, what was normed, attention's and its sum, and what the norm before the MLP made; side by side with
    attention there is no sum, and a shared norm makes nothing more.
    """
    shape, block = model.shape, model.block
    wide = 2 if not model.gated else 3 if model.is_compiled else 4
    inputs = 3 if model.is_compiled or shape.shared_norm else 4 if shape.parallel_residual else 5
    in_mlp = inputs * block.input + wide * block.wide
    return max(in_mlp, 5 * block.input + 3 * block.scores if block.scores else 0)  # raw, masked and as weights


def _decode(model: Model, tape: Tape) -> None:
    """The cache, and under FSDP the units that a token passes."""
    options, batch = model.config.generate, model.sizes.micro_batch_size
    length = options.prompt_length + options.new_tokens
    tape.phase = "decode"
    tape.take("cache", arithmetic.kv_cache_bytes(model.shape, batch, length, model.width.activation))
    tape.take("logits", 2.0 * batch * model.shape.vocab_size * 4)
    if model.is_fsdp:
        _gather_units(model, tape)
    if model.config.precision.backend == "bitsandbytes":
        inputs, outputs = arithmetic.linear_shapes(model.shape)["qkv"]
        tape.take("temporaries", 2.0 * inputs * outputs)


def _gather_units(model: Model, tape: Tape) -> None:
    """Root and blocks as they are gathered; stage 2 keeps every block."""
    gather_first(model, tape)
    more = 1 if model.config.strategy.stage == 3 else model.shape.num_layers - 1
    tape.take("communication", more * gathered_bytes(model, model.block.parameters))
