"""What really ran in one profiled step: products by number format, attention calls, graphs, collectives, kernels.

Operators are seen from outside by torch's profiler, eager or called from compiled graphs; modules are not touched.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

FORMATS = {"float": "float32", "c10::BFloat16": "bfloat16", "c10::Half": "float16"}
"""The profiler's word for an element type → the configuration's."""

FLOAT8 = "float8"

PRODUCTS = {"aten::mm": 0, "aten::addmm": 1, "aten::_scaled_mm": 0}
"""Operator that multiplies two matrices → the position of the first; those that call these are not counted again."""

COLLECTIVES = {
    "all_reduce": re.compile(r"(gloo|nccl):all_reduce$"),
    "reduce_scatter": re.compile(r"c10d::_reduce_scatter_base_$"),
    "all_gather": re.compile(r"c10d::_allgather_base_$"),
}
"""Kind → the events that carry its sizes; gloo makes a reduce-scatter of an all-reduce, which is subtracted."""

REGION = "Torch-Compiled Region"
ATTENTION = re.compile(r"aten::_scaled_dot_product_(flash|efficient|cudnn|fused)_?attention(?!.*backward)")
GEMM_KERNEL = re.compile(r"gemm|nvjet|xmma", re.IGNORECASE)
FLOAT8_KERNEL = re.compile(r"e4m3|e5m2|float_?8|fp8|nvjet(_sm\d+)?_[qr]", re.IGNORECASE)


@dataclass(slots=True)
class StepProfile:
    """Counts of one profiled step on this rank."""

    product_flops: Counter[str] = field(default_factory=Counter)
    """Number format of the inputs → FLOPs of matrix products that went through torch's operators."""
    num_attention_calls: int = 0
    """Forward calls of a fused attention operator."""
    num_regions: int = 0
    """Calls of a compiled region."""
    num_collectives: Counter[str] = field(default_factory=Counter)
    collective_elements: Counter[str] = field(default_factory=Counter)
    """Kind → elements of the unsharded buffers."""
    gemm_kernels: Counter[str] = field(default_factory=Counter)
    """Name → launches of device kernels that multiply matrices."""

    @property
    def num_float8_kernels(self) -> int:
        """Launches of matrix products in float8."""
        return sum(count for name, count in self.gemm_kernels.items() if FLOAT8_KERNEL.search(name))


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
    for event in events:
        if event.device_type().name == "CUDA":
            _count_kernel(found, event.name())
        else:
            _count_operator(found, event.name(), event)
    # What gloo moved for a reduce-scatter is no all-reduce of its own.
    scattered = found.num_collectives["reduce_scatter"]
    if found.num_collectives["all_reduce"] >= scattered > 0:
        found.num_collectives["all_reduce"] -= scattered
        found.collective_elements["all_reduce"] -= found.collective_elements["reduce_scatter"]
    return found


def _count_kernel(found: StepProfile, name: str) -> None:
    if GEMM_KERNEL.search(name):
        found.gemm_kernels[name] += 1


def _count_operator(found: StepProfile, name: str, event: Any) -> None:
    if name in PRODUCTS:
        _count_product(found, name, event.shapes(), event.dtypes())
    elif name.startswith(REGION):
        found.num_regions += 1
    elif ATTENTION.match(name):
        found.num_attention_calls += 1
    else:
        kind = next((kind for kind, pattern in COLLECTIVES.items() if pattern.match(name)), None)
        if kind is not None:
            found.num_collectives[kind] += 1
            sizes = [math.prod(shape) for shape in event.shapes() if shape]
            found.collective_elements[kind] += max(sizes, default=0)


def _count_product(found: StepProfile, name: str, shapes: list[list[int]], dtypes: list[str]) -> None:
    first = PRODUCTS[name]
    left, right = shapes[first], shapes[first + 1]
    if len(left) != 2 or len(right) != 2:
        return
    number_format = FLOAT8 if name == "aten::_scaled_mm" else FORMATS.get(dtypes[first], dtypes[first])
    found.product_flops[number_format] += 2 * left[0] * left[1] * right[1]
