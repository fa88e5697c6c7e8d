"""Memory and time of a cell without running it: lower bounds and estimates from arithmetic and data-sheet peaks."""

from dataclasses import replace

from typing_extensions import TypedDict

from benchrunner.core import arithmetic
from benchrunner.core.cell import Cell, Sizes
from benchrunner.core.parity_cell import small_scale
from benchrunner.core.schema import Config
from benchrunner.machine.hardware import Hardware

ELEMENT_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "float8": 2}
"""Bytes an activation by compute dtype: fp8 linears take and give bfloat16."""

PEAK_NAMES = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16", "float8": "fp8"}

TRAINS = frozenset({"train", "lora", "adapter", "adapter_v2"})
"""Workloads whose step is forward, backward and update."""

CPU_CORE_FLOPS = 2e11
"""More than a core reaches on these models; a step that is hopeless at this speed is hopeless."""


class Prediction(TypedDict, total=False):
    """What is known of a cell before it runs."""

    method: str
    bound: str
    peak_memory_bytes: int
    activation_bytes: int
    step_time_s: float | None


def predict(cell: Cell, hardware: Hardware) -> Prediction:
    """What can be said before running.

    `peak_memory_bytes` and `step_time_s` are lower bounds (`bound: lower`); `activation_bytes` is an estimate of what
    comes on top of the memory. A time is None where the device's peak is unknown or the workload has no steps.
    """
    if cell.axes["workload"] == "parity":
        cell = small_scale(cell)
    return {
        "method": "analytic",
        "bound": "lower",
        "peak_memory_bytes": arithmetic.memory_lower_bound_bytes(cell.config, cell.sizes),
        "activation_bytes": activation_bytes(cell.config, cell.sizes),
        "step_time_s": step_time_s(cell.config, typical_sizes(cell), hardware),
    }


ALPACA_LENGTH = 110
"""Tokens of a mean sample under `workload.lengths=alpaca`."""


def typical_sizes(cell: Cell) -> Sizes:
    """The cell's sizes with the mean length of its samples: time grows with it, memory with the longest."""
    workload, longest = cell.config.workload, cell.sizes.seq_len
    means = {"uniform": (workload.min_length + longest) // 2, "alpaca": min(ALPACA_LENGTH, longest)}
    return replace(cell.sizes, seq_len=means.get(workload.lengths, longest))


def activation_bytes(config: Config, sizes: Sizes) -> int:
    """Estimate of the activations of one pass, one device: Σ kept blocks + the working set of one block + head.

    Training keeps `block_bytes` for a block that is not checkpointed and its input, tokens·d_model·b, for one that is.
    Without a backward pass only one block and the head are alive.
    """
    model, tokens = config.model, sizes.micro_batch_size * sizes.seq_len
    element = ELEMENT_BYTES.get(config.precision.compute_dtype, 4)
    block = block_bytes(config, sizes, element)
    kept = 0
    if config.workload.name in TRAINS:
        checkpointed = len(arithmetic.checkpointed_blocks(model.num_layers, config.activation_checkpointing))
        kept = (model.num_layers - checkpointed) * block + checkpointed * tokens * model.d_model * element
    return kept + block + head_bytes(config, tokens, element)


def block_bytes(config: Config, sizes: Sizes, element: int) -> int:
    """Activations that one block keeps for its backward: tokens·b·(6·d + 2·d_kv + m·d_ff), m = 4 gated, 2 else.

    Six of width d: the inputs of both norms, both norms' outputs, the queries and the attention output. Attention
    that writes its scores (math, explicit) adds 2·batch·heads·T² elements.
    """
    model, tokens = config.model, sizes.micro_batch_size * sizes.seq_len
    kv_width = model.d_model // model.num_heads * model.num_kv_heads
    wide = (4 if model.mlp == "swiglu" else 2) * model.d_ff
    elements = tokens * (6 * model.d_model + 2 * kv_width + wide)
    if config.attention in ("math", "explicit"):
        elements += 2 * tokens * model.num_heads * sizes.seq_len
    return int(elements * element)


def head_bytes(config: Config, tokens: int, element: int) -> int:
    """Logits and their gradient in the compute dtype and one float32 copy: rows·V·(2·b + 4), rows by loss chunk."""
    rows = min(tokens, config.workload.loss_chunk_tokens or tokens)
    return int(rows * config.model.vocab_size * (2 * element + 4))


def step_time_s(config: Config, sizes: Sizes, hardware: Hardware) -> float | None:
    """Roofline: the largest of compute, memory and communication time, as if they overlapped perfectly."""
    if config.workload.name not in TRAINS:
        return None
    compute = compute_time_s(config, sizes, hardware)
    if compute is None:
        return None
    return max(compute, traffic_time_s(config, sizes, hardware), communication_time_s(config, sizes, hardware))


def compute_time_s(config: Config, sizes: Sizes, hardware: Hardware) -> float | None:
    """Executed FLOPs (recomputation included) ÷ (world size × peak of the compute dtype)."""
    peak = hardware.peak_flops.get(PEAK_NAMES.get(config.precision.compute_dtype, ""))
    return arithmetic.hardware_flops_per_step(config, sizes) / (sizes.world_size * peak) if peak else None


def traffic_time_s(config: Config, sizes: Sizes, hardware: Hardware) -> float:
    """Parameters, gradients and optimizer state read and written once each ÷ memory bandwidth."""
    bandwidth = hardware.memory_bandwidth_bytes_per_second
    return 2 * arithmetic.memory_lower_bound_bytes(config, sizes) / bandwidth if bandwidth else 0.0


def communication_time_s(config: Config, sizes: Sizes, hardware: Hardware) -> float:
    """Bytes that a device sends in ring collectives ÷ interconnect bandwidth; P is the size of the trained weights.

    DDP: an all-reduce, 2·P·(n−1)/n. Stage 2 and 3: a reduce-scatter, P·(n−1)/n, and one or two all-gathers of as much.
    """
    bandwidth, ranks = hardware.interconnect_bytes_per_second, sizes.world_size
    strategy = config.strategy
    if not bandwidth or ranks == 1 or strategy.kind == "single":
        return 0.0
    trained = arithmetic.num_trainable_parameters(config.model, config.workload)
    passes = 3 if strategy.stage == 3 else 2
    return passes * trained * 2 * (ranks - 1) / ranks / bandwidth


def cpu_time_s(config: Config, sizes: Sizes, num_cores: int) -> float:
    """A time that the steps of a cell cannot beat on this many CPU cores."""
    if config.workload.name not in TRAINS:
        tokens = sizes.global_batch_size * sizes.seq_len
        flops = tokens * arithmetic.forward_flops_per_token(config.model, sizes.seq_len)
    else:
        flops = arithmetic.train_flops_per_step(config, sizes)
    return float(flops * (config.measure.steps + config.measure.warmup_steps) / (CPU_CORE_FLOPS * num_cores))
