"""How many operations the host issues for a step: what limits it where kernels are short.

Counted from the decoder's own code under a dispatcher that sees every operation; the time of views is in the others'.
What frameworks add was fitted to runs on H200s (docs/results). The host and the device work side by side, so that a
step takes the longer of the two.
"""

import math

from benchrunner.core import arithmetic
from benchrunner.core.cell import Sizes
from benchrunner.core.schema import Config
from benchrunner.plan.micro_batches import Lengths

OPERATION_S = 1e-5
"""One operation at the reference rate, its part of Python and of views included. `host` is the share of that rate that
a host reaches: 12 µs an operation of a decode were seen on one host of H200s, 22 µs on another."""

AUTOGRAD = 2.2
"""An operation that autograd records against one without gradients: 50 µs, on hosts that decode with 22 µs each."""
BACKWARD = 0.6
"""An operation of the backward pass against one of the forward pass: it is issued without Python."""
BACKWARD_OPERATIONS = 1.6
"""Of the backward pass for each one of the forward pass: 1.35 (LoRA of phi) to 1.9 (adapter v2)."""

COMPILED_BLOCK, COMPILED_PASS = 10.0, 18.0
"""A compiled block without gradients, and in each pass with them: guards, the call of its graph, what it launches."""
CAPTURED_GRAPH = 4.0
"""The replay of a CUDA graph."""

ADDED_TO_BLOCK = {"lora": 8.0, "adapter": 7.0, "adapter_v2": 17.0}
"""Workload → operations more in a block's forward pass."""
ADDED_TO_LINEAR = {"nf4": 2.2, "nf4-dq": 3.0, "fp8": 8.0, "fp8-torchao": 15.0}
"""Precision → operations more for each linear."""
COMPILED_LINEAR = {"nf4": 3.6, "nf4-dq": 3.6, "fp8": 14.0}
"""The same of a compiled block: operations that a graph calls through Python, or breaks for."""

GATHER = 25.0
"""FSDP for a unit: hooks, copies and the collective, once in the forward pass, and for gradients and for what stage 3
gathers again in the backward pass."""
UNITS_OF_BLOCK = 6
"""Of FSDP where each module is one (`strategy.wrap=module`): four linears and two norms."""
REDUCED_TENSOR = 0.8
"""DDP's hook for a tensor."""
CHECKPOINT = 10.0
"""Leaving and entering a recomputed block, beside what is repeated."""

ROOT, CHUNK, SAMPLING = 12.0, 20.0, 8.0
"""Embedding, last norm, head and loss in a pass; a chunk of head and loss; choosing a token."""
MICRO_STEP = 10.0
"""The loop's own part: slices, contexts, the sum of losses."""
UPDATE, UPDATED_TENSOR = 10.0, 0.4
"""The fused optimizer, and each tensor that it updates."""


def step_operations(config: Config, sizes: Sizes, lengths: Lengths) -> float:
    """Operations of a step of training or of a forward pass, counted in those of a forward pass without gradients."""
    num_micro_steps = sum(count for _, count in lengths)
    if config.workload.name not in arithmetic.GRADIENT_WORKLOADS:
        a_pass = config.model.num_layers * _forward(config, sizes) + _root_gather(config, sizes) + ROOT + MICRO_STEP
        return num_micro_steps * a_pass
    passes = 1 + BACKWARD_OPERATIONS * BACKWARD
    a_micro_step = config.model.num_layers * _both_passes(config, sizes) + ROOT * passes + MICRO_STEP
    a_micro_step += _root_gather(config, sizes) * _gathers(config)
    chunks = sum(count * _num_chunks(config, sizes, length) for length, count in lengths)
    update = UPDATE + UPDATED_TENSOR * config.model.num_layers * _num_tensors(config)
    return AUTOGRAD * (num_micro_steps * a_micro_step + chunks * CHUNK * (1 + passes) + update)


def decode_operations(config: Config, sizes: Sizes) -> float:
    """Operations of one token of a generation."""
    if config.compile.replays_graphs and config.compile.scope == "model":
        return CAPTURED_GRAPH + (0.0 if config.generate.unit == "token" else SAMPLING)
    cached = 2.0 if config.compile.name == "eager" else 0.0
    blocks = config.model.num_layers * (_forward(config, sizes) + cached)
    return blocks + _root_gather(config, sizes) + ROOT + SAMPLING


def _both_passes(config: Config, sizes: Sizes) -> float:
    """A block in all passes of a micro-step that trains."""
    issued, gather = _issued(config), _block_gather(config, sizes)
    backward = issued if _is_compiled(config) else BACKWARD_OPERATIONS * BACKWARD * issued
    if config.strategy.kind == "ddp" and sizes.world_size > 1:
        backward += REDUCED_TENSOR * _num_tensors(config)
    num_layers = config.model.num_layers
    start = config.workload.adapter_start_layer if config.workload.name == "adapter" else 0
    trained = max(num_layers - start, 0) / num_layers
    recomputed = arithmetic.num_recomputed_blocks(num_layers, config) / num_layers
    return issued + gather * _gathers(config) + trained * backward + recomputed * (issued + CHECKPOINT)


def _forward(config: Config, sizes: Sizes) -> float:
    return _issued(config) + _block_gather(config, sizes)


def _issued(config: Config) -> float:
    """What is issued for a block in a forward pass, FSDP's part apart."""
    precision = config.precision.name
    if config.compile.replays_graphs:
        return CAPTURED_GRAPH
    if _is_compiled(config):
        trains = config.workload.name in arithmetic.GRADIENT_WORKLOADS
        return (COMPILED_PASS if trains else COMPILED_BLOCK) + 4 * COMPILED_LINEAR.get(precision, 0.0)
    added = 4 * ADDED_TO_LINEAR.get(precision, 0.0) + ADDED_TO_BLOCK.get(config.workload.name, 0.0)
    return _eager_operations(config) + added + _num_casts(config)


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


def _root_gather(config: Config, sizes: Sizes) -> float:
    return GATHER if config.strategy.kind == "fsdp" and sizes.world_size > 1 else 0.0


def _block_gather(config: Config, sizes: Sizes) -> float:
    return _root_gather(config, sizes) * (UNITS_OF_BLOCK if config.strategy.wrap == "module" else 1)


def _gathers(config: Config) -> int:
    """How often a micro-step goes through what `GATHER` is: there, back, and once more where parameters were let go."""
    return 3 if config.strategy.stage == 3 else 2


def _num_chunks(config: Config, sizes: Sizes, length: float) -> int:
    chunk = config.workload.loss_chunk_tokens
    return math.ceil(sizes.micro_batch_size * length / chunk) if chunk else 0


def _num_tensors(config: Config) -> int:
    """Tensors of a block that train: three of LoRA, two of an adapter, more of adapter v2, else all."""
    return {"lora": 3, "adapter": 2, "adapter_v2": 14}.get(config.workload.name, 12 if config.model.bias else 6)


def _is_compiled(config: Config) -> bool:
    return config.compile.name != "eager"
