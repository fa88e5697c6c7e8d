"""Peak memory of one device from arithmetic: a step's allocations and frees, in their order, a block at a time.

Blocks are alike, so only the first and the last of a run are walked through; those between count as they rest.
What FSDP holds when is that of torch's `fully_shard`.
"""

from dataclasses import dataclass, field, replace

from benchrunner.core import arithmetic
from benchrunner.core.cell import Cell, Sizes
from benchrunner.core.schema import Config
from benchrunner.plan.kept import Model
from benchrunner.plan.micro_batches import longest_sizes

CATEGORIES = (
    "parameters",
    "gradients",
    "optimizer",
    "activations",
    "communication",
    "logits",
    "cache",
    "temporaries",
    "workspaces",
)

WORKSPACE_BYTES = 66 * 2**20
"""cuBLAS keeps 32 MiB on Hopper for each of forward and backward pass, and the batches (worker/tape.py)."""
INFERENCE_WORKSPACE_BYTES = 33 * 2**20


@dataclass(slots=True)
class Tape:
    """What is alive, by category, and what was alive at the peak."""

    live: dict[str, float] = field(default_factory=lambda: dict.fromkeys(CATEGORIES, 0.0))
    total: float = 0.0
    peak: float = 0.0
    at_peak: dict[str, float] = field(default_factory=dict)
    phase: str = "build"
    peak_phase: str = "build"

    def take(self, category: str, num_bytes: float) -> None:
        """Allocate."""
        self.live[category] += num_bytes
        self.total += num_bytes
        if self.total > self.peak:
            self.peak, self.at_peak, self.peak_phase = self.total, dict(self.live), self.phase

    def drop(self, category: str, num_bytes: float) -> None:
        """Free."""
        self.live[category] -= num_bytes
        self.total -= num_bytes


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
        _training_step(model, tape)
    elif config.workload.name == "generate":
        _decode(model, tape)
    else:
        _forward_pass(model, tape)
    terms = {name: round(value) for name, value in tape.at_peak.items() if value >= 1}
    return Peak(total_bytes=round(tape.peak), phase=tape.peak_phase, terms=terms)


def _rest(model: Model, tape: Tape) -> None:
    """What is there between two steps."""
    config = model.config
    weights = arithmetic.resident_weight_bytes(config.model, config.precision)
    weights += arithmetic.num_added_parameters(config.model, config.workload) * model.width.stored
    tape.take("parameters", weights / model.ranks)
    if not model.on_cpu:
        tape.take("workspaces", WORKSPACE_BYTES if model.trains else INFERENCE_WORKSPACE_BYTES)
    if not model.trains:
        return
    trained = arithmetic.num_trainable_parameters(config.model, config.workload)
    state = arithmetic.optimizer_state_bytes_per_parameter(config.optimizer, model.width.stored, on_device=True)
    tape.take("optimizer", trained * state / model.ranks)
    if model.has_buckets:
        tape.take("gradients", trained * model.width.stored)
    elif model.accumulates:
        tape.take("gradients", trained * model.width.stored / model.ranks)


# --- training


def _training_step(model: Model, tape: Tape) -> None:
    """One micro-step with its backward pass; the fused optimizer adds nothing."""
    _gather_root(model, tape)
    _forward_blocks(model, tape)
    _head(model, tape)
    _backward_blocks(model, tape)
    _root_gradients(model, tape)


def _gathered_bytes(model: Model, parameters: int) -> float:
    """A unit's parameters in full, as they are gathered."""
    precision = model.config.precision
    if precision.param_dtype in arithmetic.QUANTIZED_BYTES:
        return parameters * arithmetic.QUANTIZED_BYTES[precision.param_dtype]
    return float(parameters * model.width.computed)


def _gather_root(model: Model, tape: Tape) -> None:
    tape.phase = "forward"
    if model.is_fsdp:
        tape.take("communication", _root_bytes(model))


def _root_bytes(model: Model) -> float:
    whole = arithmetic.resident_weight_bytes(model.shape, model.config.precision)
    if model.config.precision.param_dtype in arithmetic.QUANTIZED_BYTES:
        packed = model.shape.num_layers * model.block.parameters
        return whole - packed * arithmetic.QUANTIZED_BYTES[model.config.precision.param_dtype]
    return float(model.root_parameters * model.width.computed)


def _forward_blocks(model: Model, tape: Tape) -> None:
    """Forward pass over all blocks; the last one's working set is walked through."""
    block, num_layers = model.block, model.shape.num_layers
    gathered = _gathered_bytes(model, block.parameters)
    keeps_gathered = model.config.strategy.stage == 2
    kept = sum(model.kept(index) for index in range(num_layers))
    tape.take("activations", kept)
    if model.is_fsdp:
        tape.take("communication", gathered * (num_layers if keeps_gathered else 2))
        if not keeps_gathered:
            tape.drop("communication", 2 * gathered)
    last = num_layers - 1
    if last in model.checkpointed:
        working = block.saved - block.input + model.copies(block.parameters)
        tape.take("temporaries", working)
        tape.drop("temporaries", working)
    # Weights that autocast casts are cached until the forward pass is over, also those of checkpointed blocks.
    if model.width.residual != model.width.activation:
        cached = model.copies(block.parameters) * len(model.checkpointed)
        tape.take("temporaries", cached)


def _head(model: Model, tape: Tape) -> None:
    """Last norm, head and loss, forward and backward: logits in the compute dtype, three times in fp32 when eager."""
    config, block, width = model.config, model.block, model.width
    rows = min(model.tokens, config.workload.loss_chunk_tokens or model.tokens)
    logits = float(rows * model.shape.vocab_size)
    tape.phase = "loss"
    inputs = block.input + model.kept_by_norm()
    inputs += 0 if model.is_peft else model.tokens * model.shape.d_model * width.linear_input
    if config.workload.loss_chunk_tokens:
        inputs += block.input  # the gradient of the chunks that are through
    tape.take("activations", inputs)
    if config.workload.name == "adapter_v2" and not model.is_compiled:  # the scale's gradient needs what it multiplied
        tape.take("logits", logits * width.activation)
    tape.take("temporaries", model.copies(model.head_parameters))
    cached = 0.0
    if width.residual != width.activation:
        cached = model.copies(block.parameters) * len(model.checkpointed)
    packed = config.precision.param_dtype in arithmetic.QUANTIZED_BYTES and config.precision.scope == "all"
    dequantised = float(model.head_parameters * width.activation) if packed else 0.0
    if model.is_compiled:
        # A graph's backward pass writes the logits' gradient over them; not so behind a break of the graph.
        is_te = config.precision.backend == "transformer_engine"
        num_others = 2 if is_te or config.workload.name == "adapter_v2" else 0
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
    _weight_gradient(model, tape, 0 if model.is_peft else model.head_parameters)
    tape.take("temporaries", block.thin)
    tape.drop("temporaries", dequantised)
    tape.drop("logits", logits * width.activation)
    tape.drop("temporaries", model.copies(model.head_parameters) + block.thin)
    tape.drop("activations", inputs)
    tape.take("temporaries", block.input)  # the gradient of the residual stream, alive until the embedding


def _prefetch(model: Model, tape: Tape) -> None:
    """Before the backward pass of a unit the next one is gathered; stage 2 has them all."""
    if model.is_fsdp and model.config.strategy.stage == 3:
        tape.take("communication", _gathered_bytes(model, model.block.parameters))


def _weight_gradient(model: Model, tape: Tape, parameters: int) -> None:
    """The gradient of so many weights: in its buckets under DDP, else where it stays; autocast casts it."""
    if not parameters:
        return
    width = model.width
    in_bucket = model.adds_gradients
    made = parameters * width.activation
    if width.residual != width.activation or in_bucket:
        tape.take("temporaries", made)
    if width.residual != width.activation:
        tape.take("temporaries" if in_bucket else "gradients", parameters * width.stored)
        tape.drop("temporaries", made + (parameters * width.stored if in_bucket else 0))
    elif in_bucket:
        tape.drop("temporaries", made)
    else:
        tape.take("gradients", parameters * width.computed)


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
            tape.drop("communication", num_blocks * _gathered_bytes(model, model.block.parameters))
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
    _weight_gradient(model, tape, down)
    tape.drop("activations", model.tokens * model.shape.d_ff * width.linear_input if block.trained else 0)
    if model.gated:
        tape.take("temporaries", 2 * block.wide)
        tape.drop("temporaries", block.wide)
        if not model.is_compiled:
            tape.take("temporaries", 2 * block.wide)
            tape.drop("temporaries", 2 * block.wide)
    freed = block.mlp_saved - (model.tokens * model.shape.d_ff * width.linear_input if block.trained else 0)
    tape.drop("activations", freed)
    casts = _cast_bytes(model)
    tape.take("temporaries", casts)
    tape.drop("temporaries", casts)
    tape.take("temporaries", block.thin)
    _weight_gradient(model, tape, up)
    tape.drop("temporaries", (2 if model.gated else 1) * block.wide)
    tape.take("temporaries", block.input)
    tape.drop("temporaries", block.thin + block.input)
    # attention
    rest = trained - mlp_trained
    tape.take("temporaries", 5 * block.thin)
    _weight_gradient(model, tape, rest)
    tape.drop("temporaries", 5 * block.thin)
    tape.drop("activations", held - block.mlp_saved)
    _reduce_block(model, tape, index)


def _cast_bytes(model: Model) -> float:
    """What the largest matrix of a block passes through: two fp32 copies on its way to float8, or its full form."""
    largest = max(inputs * outputs for inputs, outputs in arithmetic.linear_shapes(model.shape).values())
    precision = model.config.precision
    if precision.backend == "torchao" and not model.is_compiled:
        return 8.0 * largest
    return 2.0 * largest if precision.backend == "bitsandbytes" else 0.0


def _reduce_block(model: Model, tape: Tape, index: int) -> None:
    """FSDP's end of a block's backward pass: its parameters are let go, its gradients copied, scattered and freed.

    The copy stays until the next unit is reduced.
    """
    if not model.is_fsdp:
        return
    block, width = model.block, model.width
    last = model.shape.num_layers - 1
    copy = float(block.trained * width.reduced)
    tape.drop("communication", _gathered_bytes(model, block.parameters))
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
    tape.take(
        "temporaries" if in_bucket else "gradients", embedding * (width.computed if model.is_fsdp else width.stored)
    )
    if not model.is_fsdp:
        return
    root = model.root_parameters
    tape.drop("communication", _root_bytes(model))
    tape.drop("communication", block.trained * width.reduced)
    tape.take("communication", root * width.reduced)
    tape.drop("gradients", root * width.computed)
    _keep_shards(model, tape, root)


# --- without a backward pass


def _forward_pass(model: Model, tape: Tape) -> None:
    """One block's working set, then all logits."""
    block = model.block
    _gather_root(model, tape)
    if model.is_fsdp:
        per = 2 if model.config.strategy.stage == 3 else model.shape.num_layers
        tape.take("communication", per * _gathered_bytes(model, block.parameters))
    tape.take(
        "temporaries", model.copies(block.parameters) + 3 * block.input + (3 if model.is_compiled else 4) * block.wide
    )
    tape.drop(
        "temporaries", model.copies(block.parameters) + 3 * block.input + (3 if model.is_compiled else 4) * block.wide
    )
    tape.phase = "loss"
    tape.take("temporaries", 2 * block.input)
    tape.take("logits", float(model.tokens * model.shape.vocab_size * model.width.activation))


def _decode(model: Model, tape: Tape) -> None:
    """The cache, and under FSDP the units that a token passes."""
    options, batch = model.config.generate, model.sizes.micro_batch_size
    length = options.prompt_length + options.new_tokens
    tape.phase = "decode"
    tape.take("cache", arithmetic.kv_cache_bytes(model.shape, batch, length, model.width.activation))
    tape.take("logits", 2.0 * batch * model.shape.vocab_size * 4)
    if model.config.precision.backend == "bitsandbytes":
        inputs, outputs = arithmetic.linear_shapes(model.shape)["qkv"]
        tape.take("temporaries", 2.0 * inputs * outputs)
    if model.is_fsdp:
        gathered = _gathered_bytes(model, model.block.parameters)
        tape.take(
            "communication",
            _root_bytes(model) + gathered * (2 if model.config.strategy.stage == 3 else model.shape.num_layers),
        )
        tape.take("communication", gathered)
