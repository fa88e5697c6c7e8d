"""Allocations and frees of a pass without gradients: `forward`, and a generation's prefill and decodes."""

from benchrunner.core import arithmetic
from benchrunner.plan.gathered_memory import gather_first, gathered_bytes
from benchrunner.plan.kept import Model
from benchrunner.plan.live_memory import Tape

PADDED_ROWS = 8
"""Inductor times products in 16 bits of another number of rows padded as well, with a matrix made for that."""


def walk_forward_pass(model: Model, tape: Tape) -> None:
    """All blocks, then all logits."""
    block = model.block
    tape.phase = "forward"
    if model.is_fsdp:
        tape.take("temporaries", block.input)  # what the embedding found
        _gather_units(model, tape)
        tape.drop("communication", gathered_bytes(model, block.parameters))
        tape.drop("temporaries", block.input)
    _walk_blocks(model, tape)
    tape.phase = "loss"
    tape.take("temporaries", 2 * block.input + _cast_input(model) + _head_matrix(model, model.tokens))
    tape.take("logits", float(model.tokens * model.shape.vocab_size * model.width.activation))


def walk_generation(model: Model, tape: Tape) -> None:
    """The cache, under FSDP the units that a token passes, and on top of them the prompts' way through the blocks."""
    options, batch = model.config.generate, model.sizes.micro_batch_size
    length = options.prompt_length + options.new_tokens
    tape.phase = "decode"
    tape.take("cache", arithmetic.kv_cache_bytes(model.shape, batch, length, model.width.activation))
    if model.is_fsdp:
        _gather_units(model, tape)
    _choose(model, tape)
    if model.is_fsdp:
        tape.drop("communication", gathered_bytes(model, model.block.parameters))
    tape.phase = "prefill"
    _walk_blocks(model, tape)
    tape.take("temporaries", 2 * model.block.input)
    _choose(model, tape)


def _choose(model: Model, tape: Tape) -> None:
    """A token of every sequence, from logits in fp32 and what is left of them; before, a product of so few rows."""
    batch = model.sizes.micro_batch_size
    unpacked = max(
        _head_matrix(model, batch), *(_unpacked(model, name, batch) for name in arithmetic.linear_shapes(model.shape))
    )
    logits = 2.0 * batch * model.shape.vocab_size * 4
    tape.take("temporaries", unpacked)
    tape.take("logits", logits)
    tape.drop("logits", logits)
    tape.drop("temporaries", unpacked)


def _walk_blocks(model: Model, tape: Tape) -> None:
    """The working set of a block, of which nothing is left when the next one begins."""
    casts = 0.0 if model.casts_eagerly else model.copies(model.block.parameters)
    working = max(_block_working_set(model), _padded_matrix(model)) + casts
    tape.take("temporaries", working)
    tape.drop("temporaries", working)


def _block_working_set(model: Model) -> float:
    """Bytes of a block without gradients where it is widest: a compiler keeps no product that it can fuse.

    Residual stream, what was normed, attention's and its sum, and what the norm before the MLP made; side by side with
    attention there is no sum, and a shared norm makes nothing more. Attention's is in the compute dtype.
    """
    shape, block = model.shape, model.block
    inputs = 3 if model.is_compiled or shape.shared_norm else 4 if shape.parallel_residual else 5
    rest, up = (inputs - 1) * block.input + block.thin, 2 if model.gated else 1
    activated = up + (1 if model.is_compiled or not model.gated else 2)
    moments = [
        up * block.wide + _unpacked(model, "gate_up" if model.gated else "up", model.tokens),
        activated * block.wide,
    ]
    if down := _unpacked(model, "down", model.tokens):
        moments.append((up + 1) * block.wide + block.thin + down)
    in_attention = 5 * block.input + 3 * block.scores if block.scores else 0.0  # raw, masked and as weights
    return max(rest + max(moments), in_attention)


def _padded_matrix(model: Model) -> float:
    """What Inductor makes to time the largest product padded, where that counts."""
    if not model.records_graphs or model.tokens % PADDED_ROWS == 0:
        return 0.0
    return model.width.activation * float(max(i * o for i, o in arithmetic.linear_shapes(model.shape).values()))


def _is_packed(model: Model) -> bool:
    return model.config.precision.backend == "bitsandbytes"


def _unpacked(model: Model, name: str, num_rows: int) -> float:
    """Bytes of a linear's matrix in 16 bits, there for a product of so many rows: of 4-bit weights, or of autocast's.

    In inference mode autocast keeps no cast for later.
    """
    inputs, outputs = arithmetic.linear_shapes(model.shape)[name]
    return _matrix(model, inputs, outputs, num_rows)


def _head_matrix(model: Model, num_rows: int) -> float:
    """The same of the head; of a head that is cast, the cast."""
    is_packed = _is_packed(model) and model.config.precision.scope == "all"
    unpacked = _matrix(model, model.shape.d_model, model.shape.vocab_size, num_rows) if is_packed else 0.0
    return unpacked or model.copies(model.head_parameters)


def _matrix(model: Model, inputs: int, outputs: int, num_rows: int) -> float:
    if not _is_packed(model):
        return model.copies(inputs * outputs) if model.casts_eagerly else 0.0
    return 0.0 if num_rows <= arithmetic.most_fused_rows(inputs, outputs) else 2.0 * inputs * outputs


def _cast_input(model: Model) -> float:
    """The head's input as eager autocast casts it."""
    return model.block.thin if model.casts_eagerly else 0.0


def _gather_units(model: Model, tape: Tape) -> None:
    """Root and blocks as they are gathered; stage 2 keeps every block."""
    gather_first(model, tape)
    more = 1 if model.config.strategy.stage == 3 else model.shape.num_layers - 1
    tape.take("communication", more * gathered_bytes(model, model.block.parameters))
