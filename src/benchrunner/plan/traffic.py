"""Bytes that pass a device's memory outside of products, and bytes that it sends to its peers."""

from benchrunner.core import arithmetic
from benchrunner.core.cell import Sizes
from benchrunner.core.schema import Config
from benchrunner.plan.kept import Widths, widths_of

PAGED_FACTOR = 2.6
"""bitsandbytes' paged optimizer against its traffic at the rate of fused AdamW: +9.6 ms where fused AdamW's whole step
takes 4 (docs/results/2026-11-21-h200-options.md)."""


def passes(config: Config) -> float:
    """How often the work of a forward pass is done: once without gradients, else three times and what is repeated."""
    if config.workload.name not in arithmetic.GRADIENT_WORKLOADS:
        return 1.0
    num_layers = config.model.num_layers
    return 1.0 + 2.0 * share_with_backward(config) + arithmetic.num_recomputed_blocks(num_layers, config) / num_layers


def share_with_backward(config: Config) -> float:
    """Of the blocks: below the first prompt of an adapter nothing trains, and nothing goes backward."""
    start = config.workload.adapter_start_layer if config.workload.name == "adapter" else 0
    return max(config.model.num_layers - start, 0) / config.model.num_layers


# --- element-wise work


def elementwise_bytes(config: Config, tokens: float) -> float:
    """What norms, residuals, positions, activations and the loss of a micro-batch of `tokens` read and write.

    Kernel by kernel, or as far as a compiler leaves it; the backward pass moves twice as much. Logits pass 36 bytes
    each in eager mode, 10 compiled, and a third more where the loss is computed in chunks and again.
    """
    width, fused = widths_of(config), config.compile.name != "eager"
    element = (width.activation + width.residual) / 2
    blocks = config.model.num_layers * _block_elements(config, fused) * element * passes(config)
    if config.workload.name not in arithmetic.GRADIENT_WORKLOADS:
        return tokens * (blocks + config.model.vocab_size * width.activation)
    logits = config.model.vocab_size * (10 if fused else 36) * (4 / 3 if config.workload.loss_chunk_tokens else 1.0)
    return tokens * (blocks + logits + _finetuning_bytes(config, width, fused))


def _block_elements(config: Config, fused: bool) -> float:
    """Elements a token that a block's forward pass reads and writes: 28·d + 5·f of Llama's, 17·d + 3·f fused."""
    model = config.model
    d, f = model.d_model, model.d_ff
    norms = 1 if model.parallel_residual and model.shared_norm else 2
    turned = d + arithmetic.kv_width(model) if model.positions == "rotary" else 0
    gated = model.mlp == "swiglu"
    if fused:
        return 2 * norms * d + 5 * d + 4 * turned + (3 if gated else 2) * f
    return 2 * norms * d + 10 * d + 7 * turned + (5 if gated else 2) * f


def _finetuning_bytes(config: Config, width: Widths, fused: bool) -> float:
    """Bytes a token of what a method adds, both passes: an adapter's gated sum, bias and scale behind every linear."""
    model, name = config.model, config.workload.name
    if name not in arithmetic.PEFT_WORKLOADS:
        return 0.0
    d = model.d_model
    blocks = (8 if fused else 18) * d * share_with_backward(config)
    if name == "adapter_v2":
        outputs = sum(outputs for _, outputs in arithmetic.linear_shapes(model).values())
        per_output = 5 if fused else 13
        return width.activation * (model.num_layers * (blocks + per_output * outputs) + per_output * model.vocab_size)
    return float(width.activation * model.num_layers * blocks)


# --- long streams


def update_bytes(config: Config, sizes: Sizes) -> float:
    """The optimizer reads and writes parameters and moments and reads gradients, once a step."""
    if config.workload.name not in arithmetic.GRADIENT_WORKLOADS:
        return 0.0
    width = widths_of(config)
    ranks = sizes.world_size if config.strategy.kind == "fsdp" else 1
    trained = arithmetic.num_trainable_parameters(config.model, config.workload) / ranks
    state = arithmetic.optimizer_state_bytes_per_parameter(config.optimizer, width.stored)
    factor = PAGED_FACTOR if config.optimizer.name == "paged-adamw" else 1.0
    return factor * trained * (3 * width.stored + 2 * state) + _summed_bytes(config, sizes, width)


def _summed_bytes(config: Config, sizes: Sizes, width: Widths) -> float:
    """Gradients of all micro-steps but the first are added to what is there."""
    trained = arithmetic.num_trainable_parameters(config.model, config.workload)
    return 3.0 * width.stored * trained * max(sizes.accumulation_steps - 1, 0)


def cast_bytes(config: Config, tokens: float) -> float:
    """What every micro-step casts: matrices of autocast, fp8's factors, and 4-bit matrices, unpacked for each pass.

    Counted as what passes the memory at the rate of the optimizer's streams: much of it stays in the cache.
    """
    model, precision, width = config.model, config.precision, widths_of(config)
    matrices, trains = arithmetic.matmul_parameters(model), config.workload.name in arithmetic.GRADIENT_WORKLOADS
    if precision.compute_dtype == "float8":
        return _fp8_bytes(config, tokens)
    if precision.backend == "bitsandbytes":
        unpacked = passes(config) - share_with_backward(config) if trains else 1.0
        return unpacked * matrices * width.activation
    by_autocast = width.stored != width.activation and width.computed == width.stored
    return float(matrices * (width.stored + width.activation) / 2) if by_autocast else 0.0


def _fp8_bytes(config: Config, tokens: float) -> float:
    """Both factors of every product on their way to float8; of eager torchao, kernel by kernel through fp32."""
    model, shared = config.model, passes(config) / 3
    is_torchao, d, f = config.precision.backend == "torchao", model.d_model, model.d_ff
    in_blocks = model.num_layers * arithmetic.block_matmul_parameters(model)
    matrices = in_blocks if is_torchao else arithmetic.matmul_parameters(model)  # torchao leaves the head alone
    if is_torchao and config.compile.name == "eager":
        return 114 * shared * (matrices + tokens * model.num_layers * (5 * d + 3 * f))
    a_weight, an_input = (5.5, 6.2) if config.precision.backend == "transformer_engine" else (9.0, 10.0)
    return a_weight * matrices + an_input * shared * tokens * model.num_layers * (3 * d + f)


GATHER_COPIES, BUCKET_COPIES = 3.6, 2.6
"""Passes over what FSDP gathers and scatters, on its way into and out of buffers, and over DDP's buckets: two, and what
they take from the computation beside them, which a generation has not."""
DECODED_COPIES = 2.0


def copied_bytes(config: Config, sizes: Sizes) -> float:
    """What wrappers copy: FSDP into and out of the buffers of its collectives, DDP gradients into its buckets."""
    width, strategy = widths_of(config), config.strategy
    trains = config.workload.name in arithmetic.GRADIENT_WORKLOADS
    trained = arithmetic.num_trainable_parameters(config.model, config.workload) if trains else 0
    if sizes.world_size == 1 or strategy.kind == "single":
        return 0.0
    if strategy.kind == "ddp":
        return BUCKET_COPIES * trained * width.stored
    moved = num_gathers(config) * gathered_bytes(config) + trained * width.reduced
    num_passes = DECODED_COPIES if config.workload.name == "generate" else GATHER_COPIES
    return num_passes * moved * sizes.accumulation_steps


# --- between devices


def gathered_bytes(config: Config) -> float:
    """The whole model as FSDP gathers it: packed where it is packed."""
    if config.precision.param_dtype in arithmetic.QUANTIZED_BYTES:
        return arithmetic.resident_weight_bytes(config.model, config.precision)
    return float(arithmetic.num_parameters(config.model) * widths_of(config).computed)


def num_gathers(config: Config) -> int:
    """How often FSDP gathers a parameter in a micro-step: stage 3 once more for the backward pass."""
    return 2 if config.strategy.stage == 3 and config.workload.name in arithmetic.GRADIENT_WORKLOADS else 1


def sent_bytes(config: Config, sizes: Sizes) -> float:
    """Bytes that a device sends in a step's ring collectives; n ranks, P bytes of what is sent.

    DDP: an all-reduce of the gradients, 2·P·(n−1)/n. FSDP: a reduce-scatter, P·(n−1)/n, and all-gathers of as much:
    one in stage 2, two in stage 3; for every micro-step.
    """
    strategy, ranks = config.strategy, sizes.world_size
    if ranks == 1 or strategy.kind == "single":
        return 0.0
    width, ring = widths_of(config), (ranks - 1) / ranks
    trains = config.workload.name in arithmetic.GRADIENT_WORKLOADS
    trained = arithmetic.num_trainable_parameters(config.model, config.workload) if trains else 0
    if strategy.kind == "ddp":
        return 2.0 * trained * width.stored * ring
    sent = trained * width.reduced + num_gathers(config) * gathered_bytes(config)
    return float(sent * ring * sizes.accumulation_steps)
