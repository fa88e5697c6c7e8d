"""`formula: llm-analysis-2023`: the published analytic model of May 2023, exactly, beside our own.

Its limits, to be printed with it: `LIMITS`. It knows a model by four numbers; bytes are 1e9 a GB.
Symbols: L layers, h width, V vocabulary, b batch, s length, t, p, q tensor, pipeline and sequence parallel sizes.
"""

import math
from dataclasses import dataclass
from typing import Literal

NAME = "llm-analysis-2023"

LIMITS = (
    "no grouped-query attention, no gated MLP, no norms' parameters, one shared embedding; "
    "bandwidth and communication are absent from training time"
)

ALL_REDUCE_FLOOR_S = 8e-6

Recompute = Literal["none", "selective", "full"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """Data-sheet numbers as that model has them."""

    memory_bytes: float
    bandwidth: float
    """Of the memory, bytes/s."""
    link: float
    """NVLink, bytes/s."""
    peaks: dict[int, float]
    """Bits of the operands → FLOP/s."""


A100_PEAKS = {16: 312e12, 8: 624e12, 4: 1248e12}

DEVICES = {
    "a100-sxm-80gb": Device(memory_bytes=80e9, bandwidth=2039e9, link=300e9, peaks=A100_PEAKS),
    "a100-sxm-40gb": Device(memory_bytes=40e9, bandwidth=1555e9, link=300e9, peaks=A100_PEAKS),
    "h100-sxm-80gb": Device(
        memory_bytes=80e9, bandwidth=3350e9, link=450e9, peaks={16: 989e12, 8: 1979e12, 4: 3958e12}
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A model as that formula knows it."""

    num_layers: int
    num_heads: int
    width: int
    vocab_size: int

    @property
    def layer_parameters(self) -> int:
        """12·h²: four matrices of attention, two of an MLP four times as wide."""
        return 12 * self.width**2

    @property
    def embedding_parameters(self) -> int:
        """V·h, shared with the head."""
        return self.vocab_size * self.width


@dataclass(frozen=True, slots=True, kw_only=True)
class Bits:
    """Bits a weight, an activation and an element of the embedding: w16a16e16."""

    weight: int = 16
    activation: int = 16
    embedding: int = 16

    @property
    def compute(self) -> int:
        """Which peak counts: that of the wider operand."""
        return max(self.weight, self.activation)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """A model on devices: all that the formulas ask beside batch and length."""

    shape: Shape
    device: Device
    bits: Bits = Bits()
    tensor: int = 1
    pipeline: int = 1
    sequence: int = 1
    data: int = 1
    zero: int = 0
    """Stage of ZeRO: 1 spreads the optimizer's state over `data`, 2 the gradients, 3 the weights too."""
    flops_efficiency: float = 1.0
    memory_efficiency: float = 1.0

    @property
    def flops(self) -> float:
        """F: FLOP/s that products reach; 0 where the device has no peak for the operands."""
        return self.device.peaks.get(self.bits.compute, 0.0) * self.flops_efficiency

    @property
    def bandwidth(self) -> float:
        """B: bytes/s that the memory reaches."""
        return self.device.bandwidth * self.memory_efficiency

    @property
    def weight_bytes_each(self) -> float:
        """W."""
        return self.bits.weight / 8

    @property
    def activation_bytes_each(self) -> float:
        """A."""
        return self.bits.activation / 8

    @property
    def embedding_bytes_each(self) -> float:
        """E."""
        return self.bits.embedding / 8

    @property
    def num_devices(self) -> int:
        """t·p·dp."""
        return self.tensor * self.pipeline * self.data

    @property
    def stage_layers(self) -> int:
        """⌊L/p⌋: layers that do not divide over the stages are left out of a device's time and memory, as published.

        (4 of LLaMA-33B's 60 over 8 stages.) The FLOPs of a micro-batch and its activations have all L.
        """
        return self.shape.num_layers // self.pipeline


# --- FLOPs


def forward_flops(shape: Shape, batch: int, length: int) -> float:
    """L(24·b·s·h² + 4·b·s²·h) + 2·b·s·h·V."""
    width = shape.width
    layer = 24 * batch * length * width**2 + 4 * batch * length**2 * width
    return float(shape.num_layers * layer + 2 * batch * length * width * shape.vocab_size)


def training_flops(shape: Shape, batch: int, length: int, recompute: Recompute) -> float:
    """Forward and twice that, and what is recomputed: 4·b·s²·h·L (selective) or the forward pass (full)."""
    forward = forward_flops(shape, batch, length)
    again = {"none": 0.0, "selective": 4.0 * batch * length**2 * shape.width * shape.num_layers, "full": forward}
    return 3 * forward + again[recompute]


# --- Bytes a device


def _resident_layer_bytes(setup: Setup, each: float, sharded_from: int) -> float:
    ranks = setup.data if setup.zero >= sharded_from else 1
    return setup.shape.layer_parameters * each / setup.tensor * setup.stage_layers / ranks


def weight_bytes(setup: Setup) -> float:
    """P_layer·W/t·⌊L/p⌋ (÷ dp under ZeRO 3) + V·h·E/t."""
    embedding = setup.shape.embedding_parameters * setup.embedding_bytes_each / setup.tensor
    return _resident_layer_bytes(setup, setup.weight_bytes_each, 3) + embedding


def gradient_bytes(setup: Setup) -> float:
    """P_layer·W/t·⌊L/p⌋ (÷ dp from ZeRO 2)."""
    return _resident_layer_bytes(setup, setup.weight_bytes_each, 2)


def optimizer_bytes(setup: Setup) -> float:
    """16·P_layer/t·⌊L/p⌋ (÷ dp from ZeRO 1)."""
    return _resident_layer_bytes(setup, 16.0, 1)


def _attention_bytes(setup: Setup, batch: int, length: int, *, scores: bool = True) -> float:
    tokens = batch * length * setup.shape.width
    squares = 2 * setup.shape.num_heads * length**2 * batch / setup.tensor if scores else 0.0
    return (tokens / setup.sequence + 4 * tokens / setup.tensor + squares) * setup.activation_bytes_each


def _mlp_bytes(setup: Setup, batch: int, length: int) -> float:
    tokens = batch * length * setup.shape.width
    return (tokens / setup.sequence + 8 * tokens / setup.tensor) * setup.activation_bytes_each


def _norm_bytes(setup: Setup, batch: int, length: int, each: int) -> float:
    return batch * length * setup.shape.width / setup.sequence * each


def inference_activation_bytes(setup: Setup, batch: int, length: int) -> float:
    """All layers of a device: attention, MLP and two norms of 2-byte elements."""
    layer = _attention_bytes(setup, batch, length) + _mlp_bytes(setup, batch, length)
    layer += 2 * _norm_bytes(setup, batch, length, 2)
    return layer * setup.stage_layers


def training_activation_bytes(setup: Setup, batch: int, length: int, recompute: Recompute) -> float:
    """Of one micro-batch: L layers, since a pipeline's first stage holds p micro-batches of L/p layers each.

    Selective recomputation keeps no scores, and the MLP's dropout a byte more; full keeps each layer's input.
    """
    tokens = batch * length * setup.shape.width
    if recompute == "full":
        return tokens * setup.activation_bytes_each / setup.tensor * setup.shape.num_layers
    layer = _attention_bytes(setup, batch, length, scores=recompute == "none")
    layer += _mlp_bytes(setup, batch, length) + tokens / setup.sequence
    layer += 2 * _norm_bytes(setup, batch, length, 4)
    return layer * setup.shape.num_layers


def kv_cache_bytes(setup: Setup, batch: int, length: int) -> float:
    """2·b·(s+g)·h/t·A·⌊L/p⌋ for `length` = s + g."""
    elements = 2 * batch * length * setup.shape.width / setup.tensor
    return elements * setup.activation_bytes_each * setup.stage_layers


# --- Seconds


def _all_reduce_s(setup: Setup, batch: int, length: int, each: float) -> float:
    """Ring, at least 8 µs; nothing on one device."""
    if setup.tensor == 1:
        return 0.0
    sent = 2 * batch * length * setup.shape.width * (setup.tensor - 1) / setup.tensor * each
    return max(sent / setup.device.link, ALL_REDUCE_FLOOR_S)


def _roofline_s(setup: Setup, flops: float, parameters: int, activation: float) -> float:
    moved = parameters * setup.weight_bytes_each / setup.tensor + activation
    return max(flops / (setup.tensor * setup.flops), moved / setup.bandwidth)


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardPass:
    """Seconds of a forward pass, by what they go to."""

    attention_s: float
    mlp_s: float
    norm_s: float
    communication_s: float
    """All-reduces of tensor parallelism inside the layers."""
    embedding_s: float
    """The whole table read, and its all-reduce."""
    head_s: float
    """Product with the vocabulary, and loss."""

    @property
    def seconds(self) -> float:
        """All of it."""
        layers_s = self.attention_s + self.mlp_s + self.norm_s + self.communication_s
        return layers_s + self.embedding_s + self.head_s


def forward_pass(setup: Setup, batch: int, length: int) -> ForwardPass:
    """⌊L/p⌋ layers, each attention and MLP at their rooflines, two norms of 4-byte elements, two all-reduces.

    Attention is 8bsh² + 4bs²h FLOPs over 4h² weights, the MLP 16bsh² over 8h²; the head 2bshV.
    """
    shape, width, tokens = setup.shape, setup.shape.width, batch * length
    layers, parameters = setup.stage_layers, shape.embedding_parameters
    attention_flops = 8 * tokens * width**2 + 4 * tokens * length * width
    attention = _roofline_s(setup, attention_flops, 4 * width**2, _attention_bytes(setup, batch, length))
    mlp = _roofline_s(setup, 16 * tokens * width**2, 8 * width**2, _mlp_bytes(setup, batch, length))
    table = parameters * setup.embedding_bytes_each / setup.bandwidth
    return ForwardPass(
        attention_s=layers * attention,
        mlp_s=layers * mlp,
        norm_s=layers * 2 * _norm_bytes(setup, batch, length, 4) / setup.bandwidth,
        communication_s=layers * 2 * _all_reduce_s(setup, batch, length, setup.activation_bytes_each),
        embedding_s=table + _all_reduce_s(setup, batch, length, setup.embedding_bytes_each),
        head_s=2 * tokens * parameters / (setup.tensor * setup.flops),
    )


def prefill_s(setup: Setup, batch: int, length: int) -> float:
    """Seconds to the first token."""
    return forward_pass(setup, batch, length).seconds


def decode_s(setup: Setup, batch: int, length: int, new_tokens: int) -> float:
    """Seconds a token: a forward pass of one, and the cache of the final length twice."""
    return forward_pass(setup, batch, 1).seconds + cache_s(setup, batch, length + new_tokens)


def cache_s(setup: Setup, batch: int, length: int) -> float:
    """Seconds a token in which the cache of `length` tokens is read and written."""
    return 2 * kv_cache_bytes(setup, batch, length) / setup.bandwidth


# --- Largest batches


def largest_prefill_batch(setup: Setup, length: int) -> int:
    """⌊free ÷ activation of one sequence⌋; the cache is ignored."""
    free = setup.device.memory_bytes - weight_bytes(setup)
    return max(0, math.floor(free / inference_activation_bytes(setup, 1, length)))


def largest_decode_batch(setup: Setup, length: int, new_tokens: int) -> int:
    """⌊free ÷ (cache and activation of one token of one sequence)⌋."""
    free = setup.device.memory_bytes - weight_bytes(setup)
    a_sequence = kv_cache_bytes(setup, 1, length + new_tokens) + inference_activation_bytes(setup, 1, 1)
    return max(0, math.floor(free / a_sequence))


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """A training run as the formula sees it."""

    micro_batch_size: int
    """The largest divisor of global ÷ dp that fits."""
    largest_micro_batch: int
    accumulation_steps: int
    iterations: int
    flops: float
    """Of a micro-batch over t·p devices."""
    micro_batch_s: float
    gpu_hours: float


def train(setup: Setup, *, length: int, global_batch: int, tokens: float, recompute: Recompute) -> Training:
    """GPU-hours of `tokens` tokens.

    Raises:
        ValueError: not even one sequence fits, or the global batch does not divide by `data`.
    """
    if global_batch % setup.data:
        raise ValueError(f"a global batch of {global_batch} does not divide by {setup.data} replicas")
    free = setup.device.memory_bytes - weight_bytes(setup) - gradient_bytes(setup) - optimizer_bytes(setup)
    largest = math.floor(free / training_activation_bytes(setup, 1, length, recompute))
    if largest < 1:
        raise ValueError("not even one sequence fits beside weights, gradients and optimizer state")
    a_replica = global_batch // setup.data
    micro = next(size for size in range(min(largest, a_replica), 0, -1) if a_replica % size == 0)
    flops = training_flops(setup.shape, micro, length, recompute)
    micro_s = flops / (setup.tensor * setup.pipeline * setup.flops)
    accumulation, iterations = a_replica // micro, math.floor(tokens / (global_batch * length))
    return Training(
        micro_batch_size=micro,
        largest_micro_batch=largest,
        accumulation_steps=accumulation,
        iterations=iterations,
        flops=flops,
        micro_batch_s=micro_s,
        gpu_hours=micro_s * accumulation * iterations * setup.num_devices / 3600,
    )
