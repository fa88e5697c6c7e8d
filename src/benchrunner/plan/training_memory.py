"""A training step's allocations and frees, in their order, a block at a time.

Blocks are alike, so only the first and the last of a run are walked through; those between count as they rest.
What FSDP holds when is that of torch's `fully_shard`.
"""

from benchrunner.core import arithmetic
from benchrunner.plan.gathered_memory import gather_root, gathered_bytes, root_bytes
from benchrunner.plan.kept import Model
from benchrunner.plan.live_memory import Tape


def walk_training_step(model: Model, tape: Tape) -> None:
    """One micro-step with its backward pass; the fused optimizer adds nothing."""
    gather_root(model, tape)
    _forward_blocks(model, tape)
    _head(model, tape)
    _backward_blocks(model, tape)
    _root_gradients(model, tape)


def _forward_blocks(model: Model, tape: Tape) -> None:
    """Forward pass over all blocks; the last one's working set is walked through.

    Under FSDP the last one is copied out of its buffer while that of the block before is still there.
    """
    block, last = model.block, model.shape.num_layers - 1
    gathered = gathered_bytes(model, block.parameters) if model.is_fsdp else 0.0
    num_gathered = model.shape.num_layers if model.config.strategy.stage == 2 else 1
    tape.take("activations", sum(model.kept(index) for index in range(last)))
    tape.take("communication", gathered * (num_gathered + min(2, model.shape.num_layers)))
    tape.drop("communication", gathered * min(1, last))
    tape.take("activations", model.kept(last))
    tape.drop("communication", gathered * (1 if model.config.strategy.stage == 2 else 2))
    if last in model.checkpointed:
        working = block.saved - block.input + model.copies(block.parameters)
        tape.take("temporaries", working)
        tape.drop("temporaries", working)
    tape.take("temporaries", _cached_casts(model))


def _head(model: Model, tape: Tape) -> None:
    """Last norm, head and loss, forward and backward: logits in the compute dtype, three times in fp32 when eager."""
    config, block, width = model.config, model.block, model.width
    logits = model.num_logits
    tape.phase = "loss"
    inputs = block.input + model.kept_by_norm()
    inputs += 0 if model.is_peft else model.tokens * model.shape.d_model * width.linear_input
    if config.workload.loss_chunk_tokens:
        inputs += block.input  # the gradient of the chunks that are through
    tape.take("activations", inputs)
    # The gradient of adapter v2's scale needs what it multiplied.
    multiplied = logits * width.activation if config.workload.name == "adapter_v2" and not model.is_compiled else 0.0
    tape.take("logits", multiplied)
    tape.take("temporaries", model.copies(model.head_parameters))
    cached = _cached_casts(model)
    packed = config.precision.param_dtype in arithmetic.QUANTIZED_BYTES and config.precision.scope == "all"
    dequantised = float(model.head_parameters * width.activation) if packed else 0.0
    if model.is_thunder:  # keeps logits in fp32 beside their gradient
        multiplied = logits * 4
        tape.take("logits", logits * width.activation + multiplied)
        tape.drop("temporaries", cached)
        _prefetch(model, tape)
    elif model.is_compiled:
        # A graph's backward pass writes the logits' gradient over them; not so behind a break of the graph.
        te_has_head = config.precision.backend == "transformer_engine" and not config.model.tie_embeddings
        num_others = 2 if te_has_head or config.workload.name == "adapter_v2" else 0
        others = num_others * logits * width.activation
        tape.take("logits", logits * width.activation)
        tape.drop("temporaries", cached)
        _prefetch(model, tape)
        tape.take("logits", others)
        tape.drop("logits", others)
    else:
        tape.take("logits", logits * (4 + max(4, width.activation)))
        tape.drop("logits", logits * 4)
        tape.drop("temporaries", cached)
        _prefetch(model, tape)
        tape.take("logits", logits * 8)
        tape.drop("logits", logits * 8)
        tape.take("logits", logits * width.activation)
        tape.drop("logits", logits * 4)
    tape.phase = "backward"
    tape.take("temporaries", dequantised)
    casts, slopes = model.copies(model.head_parameters), logits * width.activation
    early = (casts, slopes) if model.casts_in_graph else (0.0, 0.0)  # of no use to what is cast after
    tape.drop("temporaries", early[0])
    _weight_gradient(model, tape, 0 if model.is_peft else model.head_parameters, ("logits", early[1]))
    tape.take("temporaries", block.thin)
    tape.drop("temporaries", dequantised)
    held = logits * 4 if model.is_one_program else 0.0  # by the piece of a program that made the gradient
    tape.drop("logits", slopes + multiplied - early[1] - held)
    tape.drop("temporaries", casts + block.thin - early[0])
    tape.drop("activations", inputs)
    tape.take("temporaries", block.input)  # the gradient of the residual stream, alive until the embedding


def _cached_casts(model: Model) -> float:
    """Weights of checkpointed blocks that eager autocast casts: its cache has them until the forward pass is over."""
    return model.copies(model.block.parameters) * len(model.checkpointed) if model.casts_eagerly else 0.0


def _prefetch(model: Model, tape: Tape) -> None:
    """Before the backward pass of a unit the next one is gathered; stage 2 has them all."""
    if model.is_fsdp and model.config.strategy.stage == 3:
        tape.take("communication", gathered_bytes(model, model.block.parameters))


def _held_by_graph(model: Model) -> float:
    """What a block's compiled backward pass holds until it ends: the gradients of all its weights, if not in place."""
    return float(model.block.trained * model.width.activation) if model.is_compiled and model.adds_gradients else 0.0


def _block_gradient(
    model: Model, tape: Tape, parameters: int, last_use: tuple[str, float] = ("activations", 0.0)
) -> None:
    """That of so many weights of a block; their casts are of no use after it, in a graph after that of their inputs."""
    casts = model.copies(parameters)
    tape.drop("activations", casts if model.casts_in_graph else 0.0)
    _weight_gradient(model, tape, parameters, last_use)
    tape.drop("activations", 0.0 if model.casts_in_graph else casts)
    tape.take("temporaries", parameters * model.width.activation if _held_by_graph(model) else 0)


def _weight_gradient(
    model: Model, tape: Tape, parameters: int, last_use: tuple[str, float] = ("activations", 0.0)
) -> None:
    """The gradient of so many weights: in its buckets under DDP, else where it stays; autocast casts it.

    `last_use`: category and bytes of what nothing needs after it; a graph frees them before it casts.
    """
    width, in_bucket = model.width, model.adds_gradients
    is_cast, made = width.residual != width.activation, parameters * width.activation
    tape.take("temporaries", made if is_cast or in_bucket else 0)
    if model.casts_in_graph:
        tape.drop(*last_use)
    if is_cast:
        tape.take("temporaries" if in_bucket else "gradients", parameters * width.stored)
        tape.drop("temporaries", made + (parameters * width.stored if in_bucket else 0))
    elif in_bucket:
        tape.drop("temporaries", made)
    else:
        tape.take("gradients", parameters * width.computed)
    if not model.casts_in_graph:
        tape.drop(*last_use)


def _backward_blocks(model: Model, tape: Tape) -> None:
    """From the last block to the first; of those between, what stays behind is counted."""
    first, last = model.first, model.shape.num_layers - 1
    for index in sorted({last, max(last - 1, first), min(first + 1, last), first}, reverse=True):
        if index < last - 1 and index == first + 1:
            _skip(model, tape, range(first + 2, last - 1))
        _backward_block(model, tape, index)


def _skip(model: Model, tape: Tape, between: range) -> None:
    """Blocks whose backward pass is like that of their neighbours."""
    for index in between:
        tape.drop("activations", model.kept(index))
    _settle(model, tape, len(between))


def _settle(model: Model, tape: Tape, num_blocks: int) -> None:
    """The gradients of blocks whose backward pass and reduction are over."""
    if model.is_fsdp:
        _keep_shards(model, tape, num_blocks * model.block.trained)
        if model.config.strategy.stage == 2:
            tape.drop("communication", num_blocks * gathered_bytes(model, model.block.parameters))
    elif not model.adds_gradients:
        tape.take("gradients", num_blocks * model.block.trained * model.width.stored)


def _backward_block(model: Model, tape: Tape, index: int) -> None:
    block, width = model.block, model.width
    is_recomputed = index in model.checkpointed
    kept, saved = model.kept(index), block.saved + model.copies(block.parameters)
    if model.is_fsdp and index and model.config.strategy.stage == 3:
        _prefetch(model, tape)
    if is_recomputed:
        tape.phase = "recompute"
        tape.take("activations", saved - (kept if model.per_op else block.input))
        tape.phase = "backward"
    held = max(saved, kept) if is_recomputed else kept
    trained, mlp_trained = block.trained, block.mlp_parameters if block.trained else 0
    down, up = (mlp_trained // 3, 2 * mlp_trained // 3) if model.gated else (mlp_trained // 2, mlp_trained // 2)
    # down: the gradient of its input and of its matrix; then the activation's; then those of the first product.
    tape.take("temporaries", block.wide)
    inputs = model.tokens * model.shape.d_ff * width.linear_input if block.trained else 0
    _block_gradient(model, tape, down, ("activations", inputs))
    if model.gated:
        tape.take("temporaries", 2 * block.wide)
        tape.drop("temporaries", block.wide)
        if not model.is_compiled:
            tape.take("temporaries", 2 * block.wide)
            tape.drop("temporaries", 2 * block.wide)
    held_mlp = block.mlp_saved - inputs if model.is_one_program else 0.0
    tape.drop("activations", block.mlp_saved - inputs - held_mlp)
    for casts in _cast_bytes(model):
        tape.take("temporaries", casts)
        tape.drop("temporaries", casts)
    tape.take("temporaries", block.thin)
    _block_gradient(model, tape, up, ("temporaries", (2 if model.gated else 1) * block.wide))
    tape.take("temporaries", block.input)
    tape.drop("temporaries", block.thin + block.input)
    tape.drop("activations", held_mlp)
    if index == model.shape.num_layers - 1 and model.is_one_program:
        tape.drop("logits", model.num_logits * 4)  # attention is no part of the piece
    # attention
    rest = trained - mlp_trained
    tape.take("temporaries", block.score_gradients)
    tape.drop("temporaries", block.score_gradients)
    tape.take("temporaries", 5 * block.thin)
    _block_gradient(model, tape, rest)
    tape.drop("temporaries", 5 * block.thin + _held_by_graph(model))
    tape.drop("activations", held - block.mlp_saved - model.copies(trained))
    _reduce_block(model, tape, index)


def _cast_bytes(model: Model) -> tuple[float, ...]:
    """What the largest matrix of a block needs besides while its gradients are computed, one moment after another.

    torchao passes what it casts through two fp32 copies, of which the second is there until the float8 one is: the
    gradient of the outputs, the matrix, then the same gradient once more, beside what was cast before and the gradient
    of the inputs. Inputs, and those of the norm before them, are kept until the end. bitsandbytes has the full matrix.
    """
    sizes = arithmetic.linear_shapes(model.shape).values()
    inputs, outputs = max(sizes, key=lambda size: size[0] * size[1])
    precision, matrix = model.config.precision, float(inputs * outputs)
    if precision.backend == "torchao" and not model.is_compiled:
        kept, gradient = 4.0 * model.tokens * inputs, float(model.tokens * outputs)
        return kept + gradient + 9 * matrix, kept + 2 * model.tokens * inputs + matrix + 10 * gradient
    return (2 * matrix,) if precision.backend == "bitsandbytes" else ()


def _reduce_block(model: Model, tape: Tape, index: int) -> None:
    """FSDP's end of a block's backward pass: its parameters are let go, its gradients copied, scattered and freed.

    The copy stays until the next unit is reduced.
    """
    if not model.is_fsdp:
        return
    block, width = model.block, model.width
    last = model.shape.num_layers - 1
    copy = float(block.trained * width.reduced)
    tape.drop("communication", gathered_bytes(model, block.parameters))
    if index != last:
        tape.drop("communication", copy)
    tape.take("communication", copy)
    tape.drop("gradients", block.trained * width.computed)
    _keep_shards(model, tape, block.trained)


def _keep_shards(model: Model, tape: Tape, parameters: int) -> None:
    """A rank's part of reduced gradients: new, or added to what an earlier micro-step left."""
    shards = parameters * model.width.stored / model.ranks
    tape.take("gradients", shards)
    if model.accumulates:
        tape.drop("gradients", shards)


def _root_gradients(model: Model, tape: Tape) -> None:
    """The embedding's gradient, dense; under FSDP the root's copy and shards as well."""
    block, width = model.block, model.width
    if model.is_peft:
        return
    embedding = arithmetic.embedding_parameters(model.shape)
    in_bucket = model.adds_gradients
    summed = 4.0 * embedding if model.is_one_program else 0.0  # a compiler sums its rows in fp32 and casts them
    tape.take("temporaries", summed)
    tape.take(
        "temporaries" if in_bucket else "gradients", embedding * (width.computed if model.is_fsdp else width.stored)
    )
    tape.drop("temporaries", summed)
    if not model.is_fsdp:
        return
    root = model.root_parameters
    tape.drop("communication", root_bytes(model))
    tape.drop("communication", block.trained * width.reduced)
    tape.take("communication", root * width.reduced)
    tape.drop("gradients", root * width.computed)
    _keep_shards(model, tape, root)
