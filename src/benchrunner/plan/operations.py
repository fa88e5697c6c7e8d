"""How many operations the host issues for a step: what limits it where kernels are short.

Counted from the decoder's own code under a dispatcher that sees every operation (views left out, their time is in the
others'). The host and the device work side by side, so that a step takes the longer of the two.
"""

import math

from benchrunner.core import arithmetic
from benchrunner.core.cell import Sizes
from benchrunner.core.schema import Config
from benchrunner.plan.micro_batches import Lengths

OPERATION_S = 1e-5
"""One operation at the reference rate, its part of Python and of views included. `host` is the share of that rate that
a host reaches: 12 µs and 20 µs an operation were seen on two hosts of H200s."""

BACKWARD = 0.6
"""An operation of the backward pass against one of the forward pass: autograd issues it without Python."""
BACKWARD_OPERATIONS = 1.6
"""Of the backward pass for each one of the forward pass: 1.35 (LoRA of phi) to 1.9 (adapter v2)."""

COMPILED_BLOCK = 10.0
"""A compiled block in one pass: guards, the call of its graph, and kernels that Triton launches."""
CAPTURED_GRAPH = 4.0
"""The replay of a CUDA graph."""

ADDED_TO_BLOCK = {"lora": 8.0, "adapter": 7.0, "adapter_v2": 17.0}
"""Workload → operations more in a block's forward pass."""
ADDED_TO_LINEAR = {"bitsandbytes": 2.2, "transformer_engine": 8.0, "torchao": 15.0}
"""Backend of a precision → operations more for each linear."""
COMPILED_LINEAR = {"bitsandbytes": 3.6, "transformer_engine": 8.0, "torchao": 0.0}
"""The same of a compiled block: custom operations that a graph calls through Python, or breaks for."""

GATHER = 25.0
"""FSDP for a unit and pass: hooks, copies in and out, the collective."""
CHECKPOINT = 10.0
"""Leaving and entering a recomputed block, beside what is repeated."""

ROOT, CHUNK, SAMPLING = 12.0, 20.0, 8.0
"""Embedding, last norm, head and loss in a pass; a chunk of head and loss; choosing a token."""
MICRO_STEP = 10.0
"""The loop's own part: slices, contexts, the sum of losses."""
UPDATE, UPDATED_TENSOR = 30.0, 0.4
"""The fused optimizer, and each tensor that it updates."""


def step_operations(config: Config, sizes: Sizes, lengths: Lengths) -> float:
    """Operations of the forward pass's kind in a step of training or of a forward pass."""
    trains = config.workload.name in arithmetic.GRADIENT_WORKLOADS
    num_micro_steps = sum(count for _, count in lengths)
    blocks = config.model.num_layers * _block(config, sizes) + _root(config, sizes, trains)
    chunks = sum(count * _num_chunks(config, sizes, length) for length, count in lengths) if trains else 0.0
    update = UPDATE + UPDATED_TENSOR * _num_tensors(config) if trains else 0.0
    return num_micro_steps * (blocks + MICRO_STEP) + chunks * CHUNK * (2 + BACKWARD) + update


def decode_operations(config: Config, sizes: Sizes) -> float:
    """Operations of one token of a generation."""
    if _is_captured(config) and config.compile.scope == "model":
        return CAPTURED_GRAPH + (0.0 if config.generate.unit == "token" else SAMPLING)
    cached = 2.0 if config.compile.name == "eager" else 0.0
    return config.model.num_layers * (_forward(config, sizes) + cached) + _gather(config, sizes) + ROOT + SAMPLING


def _block(config: Config, sizes: Sizes) -> float:
    """A block in all passes of a micro-step."""
    forward, trains = _forward(config, sizes), config.workload.name in arithmetic.GRADIENT_WORKLOADS
    if not trains:
        return forward
    each = forward if _is_compiled(config) else BACKWARD_OPERATIONS * BACKWARD * (forward - _gather(config, sizes))
    backward = each + _gather(config, sizes) * (2 if not _is_compiled(config) else 1)
    num_layers = config.model.num_layers
    start = config.workload.adapter_start_layer if config.workload.name == "adapter" else 0
    recomputed = arithmetic.num_recomputed_blocks(num_layers, config) / num_layers
    return forward + backward * max(num_layers - start, 0) / num_layers + recomputed * (forward + CHECKPOINT)


def _forward(config: Config, sizes: Sizes) -> float:
    backend, gather = config.precision.backend, _gather(config, sizes)
    if _is_captured(config):
        return CAPTURED_GRAPH + gather
    if _is_compiled(config):
        return COMPILED_BLOCK + 4 * COMPILED_LINEAR.get(backend, 0.0) + gather
    added = 4 * ADDED_TO_LINEAR.get(backend, 0.0) + ADDED_TO_BLOCK.get(config.workload.name, 0.0)
    return _eager_operations(config) + added + _num_casts(config) + gather


def _eager_operations(config: Config) -> float:
    """Four linears, attention, two sums, norms, turned queries and keys, activation: 17 of Llama's block."""
    model = config.model
    norms = 1 if model.parallel_residual and model.shared_norm else 2
    return 7.0 + norms + (6 if model.positions == "rotary" else 0) + (2 if model.mlp == "swiglu" else 1)


def _num_casts(config: Config) -> float:
    """Autocast casts weights, biases and what norms return."""
    is_autocast = config.precision.param_dtype == "float32" and config.precision.compute_dtype != "float32"
    if not is_autocast or config.strategy.kind == "fsdp":
        return 0.0
    return 6.0 + (4 if config.model.bias else 0)


def _gather(config: Config, sizes: Sizes) -> float:
    return GATHER if config.strategy.kind == "fsdp" and sizes.world_size > 1 else 0.0


def _root(config: Config, sizes: Sizes, trains: bool) -> float:
    forward = ROOT + _gather(config, sizes)
    return forward * (1 + BACKWARD_OPERATIONS * BACKWARD) if trains else forward


def _num_chunks(config: Config, sizes: Sizes, length: float) -> int:
    chunk = config.workload.loss_chunk_tokens
    return math.ceil(sizes.micro_batch_size * length / chunk) if chunk else 0


def _num_tensors(config: Config) -> int:
    """Tensors that train, about: three a block of LoRA, two of an adapter, more of adapter v2, all of a block."""
    a_block = {"lora": 3, "adapter": 2, "adapter_v2": 14}.get(config.workload.name, 12 if config.model.bias else 6)
    return config.model.num_layers * a_block


def _is_compiled(config: Config) -> bool:
    return config.compile.name != "eager"


def _is_captured(config: Config) -> bool:
    """Whether replayed CUDA graphs are what the host issues."""
    return _is_compiled(config) and config.compile.mode in ("reduce-overhead", "max-autotune")
