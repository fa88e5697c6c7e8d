"""Closed forms of what one profiled step of a rank multiplies: every matrix product and every attention call.

Of the sizes that the label claims, never of what the loop says it consumed.
"""

from collections import Counter
from dataclasses import dataclass

from benchrunner.core import arithmetic
from benchrunner.core.cell import Cell
from benchrunner.core.schema import ModelConfig, WorkloadConfig
from benchrunner.worker.validity.expected_data import sample_indices, sample_length

Shape = tuple[int, int]
"""Samples and tokens of a micro-batch, padding included."""


@dataclass(frozen=True, slots=True)
class Range:
    """At least and at most so many: eager code shows calls of a recomputation that compute nothing."""

    low: float
    high: float

    def holds(self, seen: float, tolerance: float = 0.0) -> bool:
        """Whether a number is in it, or so close as a share of it."""
        return self.low * (1 - tolerance) <= seen <= self.high * (1 + tolerance)


GENERATE_WARMUP = 3
"""Samples before those of the window; of `generate.num_samples` the first is the cold one."""


def window_length(cell: Cell) -> tuple[int, int]:
    """Steps before the window, and in it."""
    config = cell.config
    if config.workload.name == "generate":
        return GENERATE_WARMUP, max(1, config.generate.num_samples - 1)
    return config.measure.warmup_steps, config.measure.steps


def probe_shapes(cell: Cell, rank: int, num_micro_steps: int) -> list[Shape]:
    """The micro-batches of a probe, which has the data of the first step."""
    indices = sample_indices(cell, rank)[:num_micro_steps]
    return [(len(samples), max(sample_length(cell, 0, index) for index in samples)) for samples in indices]


def step_product_flops(cell: Cell, shapes: list[Shape]) -> Range:
    """FLOPs of the matrix products of a probe: those that multiply two matrices, attention's own apart."""
    tokens, calls = sum(samples * length for samples, length in shapes), len(shapes)
    workload = cell.config.workload
    if workload.name == "forward":
        whole = 2.0 * arithmetic.matmul_parameters(cell.config.model) * tokens
        return Range(whole, whole)
    if workload.name in arithmetic.PEFT_WORKLOADS:
        passes = _finetuning_flops(cell.config.model, workload, tokens, calls) + _flat_flops(cell, tokens, calls)
    else:
        passes = 6.0 * arithmetic.matmul_parameters(cell.config.model) * tokens
    again = _recomputed_flops(cell, tokens, calls)
    return Range(passes + again.low, passes + again.high + _needless_flops(cell, tokens))


def _needless_flops(cell: Cell, tokens: int) -> float:
    """torchao's linears compute the gradient of a frozen weight too, where they compute that of their input."""
    config = cell.config
    if config.precision.backend != "torchao" or config.workload.name not in arithmetic.PEFT_WORKLOADS:
        return 0.0
    return _input_gradient_flops(config.model, config.workload, tokens)


def _finetuning_flops(model: ModelConfig, workload: WorkloadConfig, tokens: int, calls: int) -> float:
    """A frozen matrix is multiplied once forward, and once more backward if something before it trains."""
    frozen = 2.0 * arithmetic.matmul_parameters(model) * tokens
    return frozen + _input_gradient_flops(model, workload, tokens) + _added_flops(model, workload, tokens, calls)


def _flat_flops(cell: Cell, tokens: int, calls: int) -> float:
    """FSDP1's flat parameters train whole where anything in them does: gradients of the frozen matrices in them too,
    and, where a whole block is one, of what its first matrix is given.
    """
    config, model, workload = cell.config, cell.config.model, cell.config.workload
    if cell.axes["engine"] != "fabric" or config.strategy.kind != "fsdp":
        return 0.0
    block, head, qkv = (
        arithmetic.block_matmul_parameters(model),
        arithmetic.head_matmul_parameters(model),
        _size(model, "qkv"),
    )
    is_by_block = config.strategy.wrap == "block"
    num_trained = max(0, model.num_layers - _first_trained_block(workload))
    beside = block if is_by_block else {"lora": qkv, "adapter": 0, "adapter_v2": block}[workload.name]
    weights = num_trained * beside + (head if workload.name == "adapter_v2" else 0)
    flops = 2.0 * weights * tokens
    if weights and workload.name != "lora":
        num_prompts = max(0, model.num_layers - workload.adapter_start_layer)
        flops += 2.0 * num_prompts * qkv * workload.adapter_prompt_length * calls
    if weights and is_by_block:
        flops += 2.0 * (num_trained * block + head) * tokens - _input_gradient_flops(model, workload, tokens)
        if workload.name == "lora":
            flops += 4.0 * workload.lora_rank * arithmetic.linear_shapes(model)["qkv"][0] * tokens
    return flops


def _input_gradient_flops(model: ModelConfig, workload: WorkloadConfig, tokens: int) -> float:
    """Of the frozen matrices: all of the blocks behind the first that trains, of that one all but its first matrix.

    Adapter v2 trains the norms before and the biases behind every matrix.
    """
    block, head = arithmetic.block_matmul_parameters(model), arithmetic.head_matmul_parameters(model)
    if workload.name == "adapter_v2":
        return 2.0 * (model.num_layers * block + head) * tokens
    first = _first_trained_block(workload)
    if first >= model.num_layers:
        return 0.0
    inputs, outputs = arithmetic.linear_shapes(model)["qkv"]
    behind = (model.num_layers - first) * block - inputs * outputs
    if model.parallel_residual:  # the first block's MLP stands beside what trains, not behind it
        behind -= sum(_size(model, name) for name in arithmetic.linear_shapes(model) if name not in ("qkv", "out"))
    return 2.0 * (behind + head) * tokens


def _first_trained_block(workload: WorkloadConfig) -> int:
    return workload.adapter_start_layer if workload.name == "adapter" else 0


def _size(model: ModelConfig, name: str) -> int:
    inputs, outputs = arithmetic.linear_shapes(model)[name]
    return inputs * outputs


def _added_flops(model: ModelConfig, workload: WorkloadConfig, tokens: int, calls: int) -> float:
    """LoRA: A and B forward, their own gradients, and their inputs' but of the first A. B's rows for the keys are zeros
    that are multiplied too. Adapters: the prompt through each layer's projection, and its gradient.
    """
    inputs, outputs = arithmetic.linear_shapes(model)["qkv"]
    if workload.name == "lora":
        rank = 2 * workload.lora_rank
        a_layer = 6.0 * rank * (inputs + outputs) * tokens
        return model.num_layers * a_layer - 2.0 * rank * inputs * tokens
    num_layers = max(0, model.num_layers - workload.adapter_start_layer)
    return 4.0 * num_layers * inputs * outputs * workload.adapter_prompt_length * calls


def _recomputed_flops(cell: Cell, tokens: int, calls: int) -> Range:
    """Products of checkpointed blocks and of a chunked head.

    Eager mode also shows calls that compute nothing: a block's last product, where recomputation stops, and under
    `per_op` products whose kept result is returned.
    """
    config = cell.config
    model, workload = config.model, config.workload
    num_blocks = arithmetic.num_recomputed_blocks(model.num_layers, config)
    least = arithmetic.block_matmul_parameters(model) - (0 if model.dropout else _size(model, "down"))
    most = float(arithmetic.block_matmul_parameters(model))
    head = 2.0 * arithmetic.head_matmul_parameters(model) * tokens if workload.loss_chunk_tokens is not None else 0.0
    added = 0.0
    if workload.name == "lora":
        added = 4.0 * workload.lora_rank * sum(arithmetic.linear_shapes(model)["qkv"]) * tokens
    elif workload.name in arithmetic.PEFT_WORKLOADS:
        added = 2.0 * _size(model, "qkv") * workload.adapter_prompt_length * calls
    mlp = sum(_size(model, name) for name in arithmetic.linear_shapes(model) if name not in ("qkv", "out", "down"))
    spared = arithmetic.num_spared_mlps(model.num_layers, config) * mlp
    keeps_products = config.activation_checkpointing.every == "per_op"
    low = 0.0 if keeps_products else 2.0 * (num_blocks * least - spared) * tokens
    return Range(low + head, num_blocks * (2.0 * most * tokens + added) + head)


def step_attention(cell: Cell, shapes: list[Shape]) -> Counter[tuple[int, int]]:
    """Length of the queries, length of the keys → calls of the forward passes, all of them causal."""
    counts: Counter[tuple[int, int]] = Counter()
    for _, length in shapes:
        counts[length, length] += cell.config.model.num_layers
    return counts


def prefill_product_flops(cell: Cell) -> float:
    """Of a whole batch of prompts: the head is for the last token of each alone."""
    model, batch = cell.config.model, cell.sizes.micro_batch_size
    blocks = model.num_layers * arithmetic.block_matmul_parameters(model) * cell.config.generate.prompt_length
    return 2.0 * batch * (blocks + arithmetic.head_matmul_parameters(model))


def decode_product_flops(cell: Cell) -> float:
    """Of one token of every sequence."""
    return 2.0 * cell.sizes.micro_batch_size * arithmetic.matmul_parameters(cell.config.model)
