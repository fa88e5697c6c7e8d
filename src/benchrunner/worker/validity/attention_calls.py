"""The attention calls of a profiled step: what was asked of each, read from the operator's own arguments."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

ARGUMENTS = {
    "aten::scaled_dot_product_attention": (5, 4),
    "aten::_scaled_dot_product_flash_attention": (4, 3),
    "aten::_scaled_dot_product_flash_attention_for_cpu": (4, 3),
    "aten::_scaled_dot_product_efficient_attention": (6, 5),
    "aten::_scaled_dot_product_cudnn_attention": (6, 5),
    "aten::_scaled_dot_product_fused_attention_overrideable": (5, 4),
}
"""Operator → positions of `is_causal` and of the dropout's probability (native_functions.yaml). The first is called by
eager code and calls one of the others; compiled graphs call those at once."""

MASKS = re.compile(r"aten::(scaled_dot_product_attention|_scaled_dot_product_(efficient|cudnn|fused))")
"""Operators whose fourth argument is a mask."""


@dataclass(frozen=True, slots=True)
class AttentionCall:
    """One call, shapes [batch, heads, length, head size]."""

    query: tuple[int, ...]
    key: tuple[int, ...]
    is_causal: bool | None
    """None: the profiler does not tell."""
    dropout: float | None = None
    has_mask: bool = False


def is_attention(name: str) -> bool:
    """Whether an event is a forward call of an attention operator."""
    return name in ARGUMENTS


def read_calls(events: Iterable[Any]) -> Iterator[AttentionCall]:
    """The calls among raw profiler events of attention operators: the outer one where one calls another."""
    threads: dict[int, list[Any]] = {}
    for event in events:
        threads.setdefault(event.start_thread_id(), []).append(event)
    for calls in threads.values():
        over_ns = 0
        for event in sorted(calls, key=lambda event: (event.start_ns(), -event.duration_ns())):
            if event.start_ns() >= over_ns:
                over_ns = event.start_ns() + event.duration_ns()
                yield _read(event)


def _read(event: Any) -> AttentionCall:
    shapes, values = event.shapes(), event.concrete_inputs()
    causal, dropout = (values[place] if place < len(values) else None for place in ARGUMENTS[event.name()])
    return AttentionCall(
        query=tuple(shapes[0]),
        key=tuple(shapes[1]),
        is_causal=causal,
        dropout=dropout,
        has_mask=bool(MASKS.match(event.name()) and shapes[3]),
    )
