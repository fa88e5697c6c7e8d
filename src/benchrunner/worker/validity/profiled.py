"""What really ran in one profiled step: products by number format, attention calls, graphs, collectives, kernels.

Operators are seen from outside by torch's profiler, eager or called from compiled graphs; modules are not touched.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchrunner.worker.validity.attention_calls import AttentionCall, is_attention, read_calls

FORMATS = {"float": "float32", "c10::BFloat16": "bfloat16", "c10::Half": "float16"}
"""The profiler's word for an element type → the configuration's."""

FLOAT8 = "float8"

SCALED_PRODUCT = "aten::_scaled_mm"

PRODUCTS = {"aten::mm": 0, "aten::addmm": 1, "aten::_addmm_activation": 1, SCALED_PRODUCT: 0}
"""Operator that multiplies two matrices → the position of the first; those that call these are not counted again."""

COLLECTIVES = {
    "all_reduce": re.compile(r"(gloo|nccl):all_reduce$"),
    "reduce_scatter": re.compile(r"c10d::_reduce_scatter_base_$"),
    "all_gather": re.compile(r"c10d::_allgather_base_$"),
}
"""Kind → the events that carry its sizes; gloo makes a reduce-scatter of an all-reduce, which is subtracted."""

PACKED_PRODUCT = re.compile(r"bitsandbytes::gem[mv]_4bit")
UNPACKING = re.compile(r"bitsandbytes::(gem[mv]_4bit|dequantize_4bit)")
"""Whatever reads packed weights: a product with them, or what makes a matrix of them for another product."""
DROPOUT = "aten::dropout"
ACTIVATIONS = frozenset({"aten::silu", "aten::gelu"})
REGION = "Torch-Compiled Region"
ATTENTION = re.compile(r"aten::_scaled_dot_product_(flash|efficient|cudnn|fused)_?attention(?!.*backward)")
KERNELS = {
    "flash": re.compile(r"aten::_scaled_dot_product_flash_attention(_for_cpu)?$"),
    "efficient": re.compile(r"aten::_scaled_dot_product_efficient_attention$"),
    "cudnn": re.compile(r"aten::_scaled_dot_product_cudnn_attention$"),
    "math": re.compile(r"aten::_scaled_dot_product_attention_math$"),
}
"""Option of `attention` → the operator that eager code takes for it, forward."""
GEMM_KERNEL = re.compile(r"gemm|nvjet|xmma", re.IGNORECASE)
FLOAT8_KERNEL = re.compile(r"e4m3|e5m2|float_?8|fp8|nvjet(_sm\d+)?_[qr]", re.IGNORECASE)


@dataclass(slots=True)
class StepProfile:
    """Counts of one profiled step on this rank."""

    product_flops: Counter[str] = field(default_factory=Counter)
    """Number format of the inputs → FLOPs of matrix products that went through torch's operators."""
    num_packed_products: int = 0
    """Calls of a library's product with packed weights, whose sizes its arguments do not show."""
    num_attention_calls: int = 0
    """Forward calls of a fused attention operator."""
    attention: list[AttentionCall] = field(default_factory=list)
    """The same calls as their callers made them, and those that no fused kernel took."""
    dropouts: list[float] = field(default_factory=list)
    """Probability of every call that drops activations, where nothing is fused; attention's own apart."""
    num_activation_calls: int = 0
    """Calls of the MLP's activation function that no compiler fused away."""
    activations: Counter[str] = field(default_factory=Counter)
    """Name of the function → such calls."""
    kernels: Counter[str] = field(default_factory=Counter)
    """Option of `attention` → forward calls that went to its operator."""
    num_unpacked: int = 0
    """How often packed weights were read."""
    tables: Counter[str] = field(default_factory=Counter)
    """Number format → look-ups in an embedding of it."""
    softmaxes: Counter[str] = field(default_factory=Counter)
    """Number format → log-softmaxes of it: those of the loss, where nothing is fused."""
    num_regions: int = 0
    """Calls of a compiled region."""
    num_collectives: Counter[str] = field(default_factory=Counter)
    collective_elements: Counter[str] = field(default_factory=Counter)
    """Kind → elements of the unsharded buffers."""
    scales: Counter[str] = field(default_factory=Counter)
    """How the operands of float8 products are scaled (tensorwise, rowwise, or the shape of the scales) → products."""
    reduced_elements: Counter[str] = field(default_factory=Counter)
    """Number format → elements that were summed over ranks."""
    gemm_kernels: Counter[str] = field(default_factory=Counter)
    """Name → launches of device kernels that multiply matrices."""

    @property
    def num_float8_kernels(self) -> int:
        """Launches of matrix products in float8."""
        return sum(count for name, count in self.gemm_kernels.items() if FLOAT8_KERNEL.search(name))


Counted = Callable[[StepProfile, Any, list[str]], None]
"""Adds one event to the counts, knowing the operators around it."""


def profiled(run: Callable[[], None], device: torch.device) -> StepProfile:
    """Run once under the profiler and count."""
    on_cuda = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_cuda else [])]
    with profile(activities=activities, record_shapes=True) as profiler:
        run()
        if on_cuda:
            torch.cuda.synchronize(device)
    assert profiler.profiler is not None
    return count_events(profiler.profiler.kineto_results.events())


def count_events(events: Iterable[Any]) -> StepProfile:
    """The counts of raw profiler events."""
    found = StepProfile()
    calls: dict[Counted, list[Any]] = {}
    attention: list[Any] = []
    unpacking: list[Any] = []
    for event in events:
        name = event.name()
        if event.device_type().name == "CUDA":
            found.gemm_kernels[name] += bool(GEMM_KERNEL.search(name))
        elif counted := _counted(name):
            calls.setdefault(counted, []).append(event)
        if is_attention(name):
            attention.append(event)
        elif name == SCALED_PRODUCT:
            found.scales[_granularity(event.shapes())] += 1
        elif UNPACKING.match(name):
            unpacking.append(event)
        _count_formats(found, name, event)
    found.num_unpacked = sum(1 for _ in innermost(unpacking))
    found.attention = list(read_calls(attention))
    for counted, all_calls in calls.items():
        for event, around in innermost(all_calls):
            counted(found, event, around)
    _without_scatters(found)
    return found


def _count_formats(found: StepProfile, name: str, event: Any) -> None:
    """What is known by an operator's name and the dtype of its first argument."""
    for kernel, pattern in KERNELS.items():
        found.kernels[kernel] += bool(pattern.match(name))
    seen = {"aten::embedding": found.tables, "aten::_log_softmax": found.softmaxes}.get(name)
    if seen is not None:
        seen[FORMATS.get(event.dtypes()[0], event.dtypes()[0])] += 1


def innermost(events: Sequence[Any]) -> Iterator[tuple[Any, list[str]]]:
    """Events that contain no other of these, each with the names of those that contain it.

    What wraps tensors, dispatches anew or emulates a format calls an operator within itself.
    """
    threads: dict[int, list[Any]] = {}
    for event in events:
        threads.setdefault(event.start_thread_id(), []).append(event)
    for calls in threads.values():
        calls.sort(key=lambda event: (event.start_ns(), -event.duration_ns()))
        around: list[Any] = []
        for event, after in zip(calls, [*calls[1:], None], strict=True):
            around = [outer for outer in around if event.start_ns() < _end_ns(outer)]
            if after is None or after.start_ns() >= _end_ns(event):
                yield event, [outer.name() for outer in around]
            around.append(event)


def _end_ns(event: Any) -> int:
    return int(event.start_ns() + event.duration_ns())


def _counted(name: str) -> Counted | None:
    """How an event is counted, if at all."""
    if name in PRODUCTS or PACKED_PRODUCT.match(name):
        return _count_product
    if name in ACTIVATIONS:
        return _count_activation
    if name == DROPOUT:
        return _count_dropout
    if ATTENTION.match(name):
        return _count_attention
    if name.startswith(REGION):
        return _count_region
    return _count_collective if _collective(name) else None


def _count_product(found: StepProfile, event: Any, around: list[str]) -> None:
    name, shapes, dtypes = event.name(), event.shapes(), event.dtypes()
    if name not in PRODUCTS:  # one that calls another operator for the product is not the innermost
        found.num_packed_products += 1
        return
    first = PRODUCTS[name]
    left, right = shapes[first], shapes[first + 1]
    if len(left) != 2 or len(right) != 2:
        return
    is_float8 = SCALED_PRODUCT in (name, *around)  # on a CPU emulated by a product in fp32
    number_format = FLOAT8 if is_float8 else FORMATS.get(dtypes[first], dtypes[first])
    found.product_flops[number_format] += 2 * left[0] * left[1] * right[1]


def _granularity(shapes: Sequence[Sequence[int]]) -> str:
    """Of the scales of a product [rows, k] × [k, columns], from the shapes of its arguments."""
    sizes = math.prod(shapes[2]), math.prod(shapes[3])
    rows, columns = shapes[0][0], shapes[1][1]
    known = {(1, 1): "tensorwise", (rows, columns): "rowwise"}
    return known.get(sizes, f"{list(shapes[2])} and {list(shapes[3])}")


def _count_activation(found: StepProfile, event: Any, around: list[str]) -> None:
    found.num_activation_calls += 1
    found.activations[event.name().removeprefix("aten::")] += 1


def _count_dropout(found: StepProfile, event: Any, around: list[str]) -> None:
    probability, is_training = event.concrete_inputs()[1:3]
    if is_training and probability:
        found.dropouts.append(probability)


def _count_attention(found: StepProfile, event: Any, around: list[str]) -> None:
    found.num_attention_calls += 1


def _count_region(found: StepProfile, event: Any, around: list[str]) -> None:
    found.num_regions += 1


def _collective(name: str) -> str | None:
    return next((kind for kind, pattern in COLLECTIVES.items() if pattern.match(name)), None)


def _count_collective(found: StepProfile, event: Any, around: list[str]) -> None:
    kind = _collective(event.name())
    assert kind is not None
    found.num_collectives[kind] += 1
    elements = max((math.prod(shape) for shape in event.shapes() if shape), default=0)
    found.collective_elements[kind] += elements
    if kind != "all_gather":
        word = next(iter(event.dtypes()), "")
        found.reduced_elements[FORMATS.get(word, word)] += elements


def _without_scatters(found: StepProfile) -> None:
    """What gloo moved for a reduce-scatter is no all-reduce of its own."""
    scattered = found.num_collectives["reduce_scatter"]
    if found.num_collectives["all_reduce"] >= scattered > 0:
        found.num_collectives["all_reduce"] -= scattered
        found.collective_elements["all_reduce"] -= found.collective_elements["reduce_scatter"]
