"""What follows from a model's shape alone: parameters, floating-point operations, bytes.

Standard library only, so that the parent can plan without torch and the worker can check itself against the same
closed forms.
Symbols: L layers, d width, f MLP width, h heads, k key-value heads, s head size (d / h), V vocabulary, T tokens.
"""

import math

from benchrunner.core.cell import Sizes
from benchrunner.core.errors import ConfigError
from benchrunner.core.schema import (
    CheckpointingConfig,
    Config,
    ModelConfig,
    OptimizerConfig,
    PrecisionConfig,
    WorkloadConfig,
)

DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
"""Bytes an element of the dtypes that torch stores as such."""

SHORT_NAMES = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
"""Names of the dtypes in the peaks of conf/hardware."""

QUANTIZED_BYTES = {"nf4": 0.5625, "nf4-dq": 0.515869140625}
"""Bytes a weight of a 4-bit matrix with its scales: a fp32 scale for 64 weights; doubly quantised, an 8-bit one and
a fp32 scale of scales for 256 of those (QLoRA, arXiv:2305.14314, section 3)."""

PACKED_BYTES = 0.5
"""Of those, what a weight itself takes: FSDP shards it, and leaves the scales whole on every rank."""

GRADIENT_WORKLOADS = frozenset({"train", "parity", "lora", "adapter", "adapter_v2"})
PEFT_WORKLOADS = frozenset({"lora", "adapter", "adapter_v2"})


# --- Parameters


def kv_width(model: ModelConfig) -> int:
    """Channels of all keys (or values) of a token: k·s."""
    return int(model.num_kv_heads * (model.d_model // model.num_heads))


def linear_shapes(model: ModelConfig) -> dict[str, tuple[int, int]]:
    """(in, out) of the linears of one block, by name."""
    d, f = model.d_model, model.d_ff
    gated = model.mlp == "swiglu"
    return {
        "qkv": (d, d + 2 * kv_width(model)),
        "out": (d, d),
        "gate_up" if gated else "up": (d, 2 * f if gated else f),
        "down": (f, d),
    }


def most_fused_rows(inputs: int, outputs: int) -> int:
    """Rows up to which bitsandbytes multiplies by a 4-bit matrix without unpacking it first.

    As release 0.50 chooses in 16 bits on an H100 or H200 (its backends/cuda/ops.py), matrices of less than 4 million
    elements apart: by how often tiles of 64 outputs fill the 132 processors, in few rows by the matrix's shape as well.
    """
    tiles = -(-outputs // 64)
    waves = tiles / 132
    for least, rows in ((3, 64), (2, 48), (1, 32)):
        if waves >= least:
            return rows
    if waves >= 0.5 and (inputs < outputs or waves >= 0.75):
        return 16
    in_pieces = inputs > outputs or (inputs == outputs and waves >= 0.6)
    return 5 if in_pieces and tiles >= 36 else 7


def block_matmul_parameters(model: ModelConfig) -> int:
    """Matrix elements of one block: d(d + 2ks) + d² + 3df (SwiGLU) or 2df."""
    return sum(inputs * outputs for inputs, outputs in linear_shapes(model).values())


def head_matmul_parameters(model: ModelConfig) -> int:
    """Matrix elements of the head, tied or not: V·d."""
    return int(model.vocab_size * model.d_model)


def matmul_parameters(model: ModelConfig) -> int:
    """N_mm: Σ in·out of the linears that a token passes, the head included (tied or not), lookups not."""
    return int(model.num_layers * block_matmul_parameters(model) + head_matmul_parameters(model))


def norm_parameters(model: ModelConfig) -> int:
    """Weights (and biases, for LayerNorm) of all norms, the last one included."""
    a_norm = model.d_model * (1 if model.norm == "rmsnorm" else 2)
    a_block = 1 if model.parallel_residual and model.shared_norm else 2
    return int(a_norm * (a_block * model.num_layers + 1))


def bias_parameters(model: ModelConfig) -> int:
    """Biases of all linears."""
    a_block = sum(outputs for _, outputs in linear_shapes(model).values()) if model.bias else 0
    return int(model.num_layers * a_block + (model.vocab_size if model.head_bias else 0))


def embedding_parameters(model: ModelConfig) -> int:
    """Elements of the lookup tables: V·d, and max_seq_len·d for learned positions."""
    positions = model.max_seq_len if model.positions == "learned" else 0
    return int((model.vocab_size + positions) * model.d_model)


def num_parameters(model: ModelConfig) -> int:
    """All parameters; a tied head counts once."""
    matrices = matmul_parameters(model) - (head_matmul_parameters(model) if model.tie_embeddings else 0)
    return matrices + embedding_parameters(model) + bias_parameters(model) + norm_parameters(model)


def num_trainable_parameters(model: ModelConfig, workload: WorkloadConfig) -> int:
    """Parameters that get a gradient: those of the finetuning method, or all of them.

    LoRA on query and value (arXiv:2106.09685): L(2rd + (d + ks)r). Adapter (arXiv:2303.16199): (L − start)(P·d + h).
    Adapter v2 (arXiv:2304.15010): adapter + bias and scale of every linear, head included + all norms.
    """
    match workload.name:
        case "lora":
            return _lora_parameters(model, workload)
        case "adapter":
            return _adapter_parameters(model, workload)
        case "adapter_v2":
            return _adapter_v2_additions(model, workload) + norm_parameters(model)
    return num_parameters(model)


def num_added_parameters(model: ModelConfig, workload: WorkloadConfig) -> int:
    """Parameters that the finetuning method adds to the model; 0 without one."""
    if workload.name == "adapter_v2":
        return _adapter_v2_additions(model, workload)
    return num_trainable_parameters(model, workload) if workload.name in PEFT_WORKLOADS else 0


def _lora_parameters(model: ModelConfig, workload: WorkloadConfig) -> int:
    d, rank = model.d_model, workload.lora_rank
    return int(model.num_layers * (2 * rank * d + (d + kv_width(model)) * rank))


def _adapter_parameters(model: ModelConfig, workload: WorkloadConfig) -> int:
    num_layers = max(0, model.num_layers - workload.adapter_start_layer)
    return int(num_layers * (workload.adapter_prompt_length * model.d_model + model.num_heads))


def _adapter_v2_additions(model: ModelConfig, workload: WorkloadConfig) -> int:
    a_block = sum(outputs for _, outputs in linear_shapes(model).values())
    outputs = model.num_layers * a_block + model.vocab_size
    return int(_adapter_parameters(model, workload) + 2 * outputs)


# --- Floating-point operations (a multiply-add is two)


def attention_flops_per_token(model: ModelConfig, seq_len: int, *, causal: bool) -> float:
    """Forward FLOPs a token of the two matrix products of attention: 4·L·d·T, half of it when `causal`."""
    full = 4 * int(model.num_layers) * int(model.d_model) * seq_len
    return full / 2 if causal else float(full)


def forward_flops_per_token(model: ModelConfig, seq_len: int, *, causal: bool = True) -> float:
    """2·N_mm + attention."""
    return 2.0 * matmul_parameters(model) + attention_flops_per_token(model, seq_len, causal=causal)


def train_flops_per_token(model: ModelConfig, seq_len: int, *, causal: bool = True) -> float:
    """Three times the forward pass: the backward pass has two products for each one (PaLM, arXiv:2204.02311, B)."""
    return 3.0 * forward_flops_per_token(model, seq_len, causal=causal)


def peft_flops_per_token(model: ModelConfig, workload: WorkloadConfig, seq_len: int, *, causal: bool = True) -> float:
    """4·N_frozen + 6·N_trainable + 3 × attention: frozen matrices need no gradient of their own.

    N_trainable counts matrices (LoRA's); an adapter's prompt is counted as the attention to it, 4·P·d a layer;
    biases, scales and norms are not counted anywhere.
    """
    frozen, attention = matmul_parameters(model), attention_flops_per_token(model, seq_len, causal=causal)
    if workload.name == "lora":
        return 4.0 * frozen + 6.0 * _lora_parameters(model, workload) + 3.0 * attention
    num_layers = max(0, model.num_layers - workload.adapter_start_layer)
    prompts = 4 * int(num_layers * workload.adapter_prompt_length * model.d_model)
    return 4.0 * frozen + 3.0 * (attention + prompts)


def generate_flops_per_sample(model: ModelConfig, prompt_length: int, new_tokens: int, *, causal: bool = True) -> float:
    """Prefill of the prompt, then `new_tokens` − 1 decodes; the token at position i attends to i + 1 keys.

    The prefill's attention follows the `causal` convention; the head is counted for every token.
    """
    num_decodes = max(0, new_tokens - 1)
    prefill = prompt_length * forward_flops_per_token(model, prompt_length, causal=causal)
    contexts = num_decodes * prompt_length + num_decodes * (num_decodes + 1) // 2
    attention = 4 * int(model.num_layers) * int(model.d_model) * contexts
    return prefill + 2.0 * matmul_parameters(model) * num_decodes + attention


def train_flops_per_step(config: Config, sizes: Sizes) -> float:
    """Model FLOPs of one step of the cell's workload over all devices, nothing recomputed, causal attention.

    A step of `generate` is one sample of every sequence in the batch; other steps have full-length samples.
    """
    model, workload = config.model, config.workload
    if workload.name == "generate":
        options = config.generate
        a_sample = generate_flops_per_sample(model, options.prompt_length, options.new_tokens)
        return sizes.global_batch_size * a_sample
    return _num_tokens(sizes) * _flops_per_token(model, workload, sizes.seq_len)


def _flops_per_token(model: ModelConfig, workload: WorkloadConfig, seq_len: int) -> float:
    if workload.name in PEFT_WORKLOADS:
        return peft_flops_per_token(model, workload, seq_len)
    if workload.name == "forward":
        return forward_flops_per_token(model, seq_len)
    return train_flops_per_token(model, seq_len)


def _num_tokens(sizes: Sizes) -> int:
    return sizes.global_batch_size * sizes.seq_len


def hardware_flops_per_step(config: Config, sizes: Sizes) -> float:
    """Model FLOPs and what is computed a second time: checkpointed blocks, and the head when the loss is in chunks."""
    return train_flops_per_step(config, sizes) + recomputed_flops_per_step(config, sizes)


def flops_by_dtype(config: Config, sizes: Sizes) -> dict[str, float]:
    """Model FLOPs of a step by the dtype that they are computed in: short name of the dtype → FLOPs.

    In fp8: every product with the matrices that `fp8_matmul_parameters` counts, three a token in training, two where
    those matrices are frozen, one without a backward pass. The rest, attention included, is in bf16 then.
    """
    total = train_flops_per_step(config, sizes)
    dtype = config.precision.compute_dtype
    if dtype != "float8":
        return {SHORT_NAMES[dtype]: total}
    in_fp8 = 2.0 * fp8_matmul_parameters(config.model, config.precision) * _num_products(config, sizes)
    return {"fp8": in_fp8, "bf16": total - in_fp8}


def fp8_matmul_parameters(model: ModelConfig, precision: PrecisionConfig) -> int:
    """Matrix elements of the linears that fp8 formats convert: not the head of `scope: blocks`, nor a tied one."""
    keeps_head = precision.scope != "all" or model.tie_embeddings
    return matmul_parameters(model) - (head_matmul_parameters(model) if keeps_head else 0)


def _num_products(config: Config, sizes: Sizes) -> int:
    """How often a step multiplies a converted matrix with a token, over all devices."""
    workload = config.workload.name
    if workload == "generate":
        tokens = config.generate.prompt_length + max(0, config.generate.new_tokens - 1)
        return int(sizes.global_batch_size * tokens)
    a_token = 2 if workload in PEFT_WORKLOADS else 3 if workload in GRADIENT_WORKLOADS else 1
    return a_token * _num_tokens(sizes)


def recomputed_flops_per_step(config: Config, sizes: Sizes) -> float:
    """FLOPs of the second forward pass of checkpointed blocks and of a chunked head, over all devices."""
    if config.workload.name not in GRADIENT_WORKLOADS:
        return 0.0
    model, checkpointing = config.model, config.activation_checkpointing
    num_blocks = num_recomputed_blocks(model.num_layers, config)
    keeps_products = checkpointing.every == "per_op"
    whole = config.precision.backend == "transformer_engine"
    a_block = recomputed_flops_per_block(model, sizes.seq_len, whole=whole)
    a_token = 0.0 if keeps_products else num_blocks * a_block
    if config.workload.loss_chunk_tokens is not None:
        a_token += 2.0 * head_matmul_parameters(model)
    return _num_tokens(sizes) * a_token


def num_recomputed_blocks(num_layers: int, config: Config) -> int:
    """Checkpointed blocks that have a backward pass: below the first prompt of an adapter nothing trains."""
    workload = config.workload
    first = workload.adapter_start_layer if workload.name == "adapter" else 0
    return sum(block >= first for block in checkpointed_blocks(num_layers, config.activation_checkpointing))


def num_spared_mlps(num_layers: int, config: Config) -> int:
    """MLPs of checkpointed blocks that nobody needs again.

    Where attention and MLP read the same input and what was added to the attention alone is trained, no gradient passes
    the MLP of the first block that is trained.
    """
    workload = config.workload
    if not config.model.parallel_residual or workload.name not in ("lora", "adapter"):
        return 0
    first = workload.adapter_start_layer if workload.name == "adapter" else 0
    return int(first in checkpointed_blocks(num_layers, config.activation_checkpointing))


def recomputed_flops_per_block(model: ModelConfig, seq_len: int, *, causal: bool = True, whole: bool = False) -> float:
    """FLOPs a token of recomputing one block: its forward pass up to the last tensor that the backward pass needs.

    That is the input of the last linear, so the product with `down` is not repeated, unless dropout follows it, or
    the checkpoint repeats the `whole` block (Transformer Engine's).
    """
    attention = attention_flops_per_token(model, seq_len, causal=causal) / int(model.num_layers)
    inputs, outputs = linear_shapes(model)["down"]
    spared = 0 if model.dropout or whole else inputs * outputs
    return 2.0 * (block_matmul_parameters(model) - spared) + attention


def checkpointed_blocks(num_layers: int, checkpointing: CheckpointingConfig) -> list[int]:
    """Blocks whose activations are recomputed: `every: q/p` takes block i iff i mod p < q; `per_op` takes all.

    Raises:
        ConfigError: `every` is no fraction q/p with 0 < q <= p.
    """
    if checkpointing.name == "none":
        return []
    if checkpointing.name == "full" or checkpointing.every == "per_op":
        return list(range(num_layers))
    taken, period = parse_fraction(checkpointing.every)
    return [index for index in range(num_layers) if index % period < taken]


def parse_fraction(text: str | None) -> tuple[int, int]:
    """(q, p) of `activation_checkpointing.every`.

    Raises:
        ConfigError: it is no fraction q/p with 0 < q <= p.
    """
    try:
        taken, period = (int(part) for part in str(text).split("/"))
    except ValueError:
        taken, period = 0, 0
    if not 0 < taken <= period:
        raise ConfigError("activation_checkpointing.every", f"'{text}' is neither q/p with 0 < q <= p nor per_op")
    return taken, period


# --- Bytes


def resident_weight_bytes(model: ModelConfig, precision: PrecisionConfig) -> float:
    """Bytes of the whole model's parameters as they rest after loading.

    4-bit formats hold the matrices of the linears (of the head too, unless `scope` is blocks) in 0.5625 or 0.515869
    bytes a weight and everything else in the compute dtype.
    """
    dtype = precision.param_dtype
    if dtype not in QUANTIZED_BYTES:
        return float(num_parameters(model) * DTYPE_BYTES[dtype])
    head, packed = head_matmul_parameters(model), _packed_parameters(model, precision)
    # A packed head cannot share the embedding's matrix, which stays as it is for the lookup.
    untied = head if model.tie_embeddings and precision.scope == "all" else 0
    rest = num_parameters(model) + untied - packed
    return packed * QUANTIZED_BYTES[dtype] + rest * _float_bytes(precision)


def scale_bytes(model: ModelConfig, precision: PrecisionConfig) -> float:
    """Of the resident weights, the scales of 4-bit formats."""
    if precision.param_dtype not in QUANTIZED_BYTES:
        return 0.0
    return _packed_parameters(model, precision) * (QUANTIZED_BYTES[precision.param_dtype] - PACKED_BYTES)


def _packed_parameters(model: ModelConfig, precision: PrecisionConfig) -> int:
    return matmul_parameters(model) - (0 if precision.scope == "all" else head_matmul_parameters(model))


def linear_weight_bytes(model: ModelConfig, precision: PrecisionConfig) -> float:
    """Bytes of the matrices that a token passes, as they rest: N_mm of them, the embedding's lookup not among them."""
    matrices, head = matmul_parameters(model), head_matmul_parameters(model)
    dtype = precision.param_dtype
    if dtype not in QUANTIZED_BYTES:
        return float(matrices * DTYPE_BYTES[dtype])
    plain = 0 if precision.scope == "all" else head
    return (matrices - plain) * QUANTIZED_BYTES[dtype] + plain * _float_bytes(precision)


def decode_bytes_per_token(config: Config, sizes: Sizes) -> float:
    """Bytes that a device must read for one decode of its batch, the mean over a sample.

    Every matrix once, and the keys and values up to the token itself: decode i of 1 .. new_tokens − 1 attends to
    prompt_length + i of them.
    """
    model, precision, options = config.model, config.precision, config.generate
    mean_length = options.prompt_length + options.new_tokens / 2
    a_slot = kv_cache_bytes(model, sizes.micro_batch_size, 1, _float_bytes(precision))
    return float(linear_weight_bytes(model, precision) + a_slot * mean_length)


def kv_cache_bytes(model: ModelConfig, batch: int, length: int, bytes_per_element: int) -> int:
    """Keys and values of `length` positions of `batch` sequences in all layers: 2·L·batch·length·k·s elements."""
    return 2 * int(model.num_layers) * batch * length * kv_width(model) * bytes_per_element


def memory_lower_bound_bytes(config: Config, sizes: Sizes) -> int:
    """What a device needs at least: parameters, gradients and optimizer state as they rest between the passes.

    FSDP spreads all three over the ranks in both stages; DDP keeps them whole. Gradients and state have the dtype of
    the trainable parameters, which is never a quantised one. Without gradients it is the weights, and for `generate`
    the key-value cache. Activations, gathered parameters and workspaces come on top.
    """
    model, workload, precision = config.model, config.workload, config.precision
    element = _trainable_bytes(precision)
    weights = resident_weight_bytes(model, precision) + num_added_parameters(model, workload) * element
    training = 0
    if workload.name in GRADIENT_WORKLOADS:
        a_parameter = element + optimizer_state_bytes_per_parameter(config.optimizer, element, on_device=True)
        training = num_trainable_parameters(model, workload) * a_parameter
    ranks = sizes.world_size if config.strategy.kind == "fsdp" else 1
    return math.ceil((weights + training) / ranks) + _cache_bytes(config, sizes)


def optimizer_state_bytes_per_parameter(
    optimizer: OptimizerConfig, param_bytes: int, *, on_device: bool = False
) -> int:
    """AdamW: two moments in the parameter's dtype; paged AdamW: two in fp32; SGD without momentum: none.

    Paged state moves to the host under pressure: `on_device` counts only what cannot.
    """
    if optimizer.name == "adamw":
        return 2 * param_bytes
    return 8 if optimizer.name == "paged-adamw" and not on_device else 0


def _cache_bytes(config: Config, sizes: Sizes) -> int:
    if config.workload.name != "generate":
        return 0
    length = config.generate.prompt_length + config.generate.new_tokens
    element = _float_bytes(config.precision)
    return kv_cache_bytes(config.model, sizes.micro_batch_size, length, element)


def _float_bytes(precision: PrecisionConfig) -> int:
    """Bytes an element of activations: the compute dtype, bf16 where that is an 8-bit one."""
    return DTYPE_BYTES.get(precision.compute_dtype, 2)


def _trainable_bytes(precision: PrecisionConfig) -> int:
    """Bytes an element of parameters that train: the parameters' dtype, or the activations' over quantised ones."""
    return DTYPE_BYTES.get(precision.param_dtype, _float_bytes(precision))
