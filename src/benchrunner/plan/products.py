"""The matrix products of a micro-batch, each limited by what it computes or by what it reads and writes.

Long products compute; those of few tokens read their matrix and wait for it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from benchrunner.core import arithmetic
from benchrunner.core.schema import Config


class Product(NamedTuple):
    """[rows, inner] × [inner, columns], so many times in a micro-step."""

    rows: float
    inner: float
    columns: float
    times: float
    in_fp8: bool

    @property
    def flops(self) -> float:
        """Operations of all times."""
        return 2.0 * self.rows * self.inner * self.columns * self.times

    def num_bytes(self, element: float) -> float:
        """Bytes of both factors and the result, of all times."""
        return element * self.times * (self.rows * self.inner + self.inner * self.columns + self.rows * self.columns)


def products_of(config: Config, rows: float) -> Iterator[Product]:
    """Those of the linears for one micro-batch of `rows` tokens, recomputation included."""
    model, is_fp8 = config.model, config.precision.compute_dtype == "float8"
    counts = _Counts.of(config)
    for name, (inputs, outputs) in arithmetic.linear_shapes(model).items():
        forward = model.num_layers + (0.0 if name == "down" and not counts.repeats_down else counts.recomputed)
        yield from _passes(rows, inputs, outputs, (forward, counts.backward, counts.weights), is_fp8)
    head_in_fp8 = is_fp8 and config.precision.scope == "all" and not model.tie_embeddings
    forward = 2.0 if config.workload.loss_chunk_tokens and counts.trains else 1.0
    passes = forward, float(counts.trains), float(counts.weights > 0)
    yield from _passes(rows, model.d_model, model.vocab_size, passes, head_in_fp8)


def _passes(
    rows: float, inputs: int, outputs: int, times: tuple[float, float, float], in_fp8: bool
) -> Iterator[Product]:
    """Forward, the gradient of the input, and that of the matrix."""
    forward, backward, weights = times
    for one_rows, inner, columns, num in (
        (rows, inputs, outputs, forward),
        (rows, outputs, inputs, backward),
        (inputs, rows, outputs, weights),
    ):
        if num:
            yield Product(one_rows, inner, columns, num, in_fp8)


@dataclass(frozen=True, slots=True)
class _Counts:
    """How often the blocks' products are made, in blocks."""

    recomputed: float
    backward: float
    weights: float
    repeats_down: bool
    trains: bool

    @classmethod
    def of(cls, config: Config) -> "_Counts":
        model, workload = config.model, config.workload
        trains = workload.name in arithmetic.GRADIENT_WORKLOADS
        start = workload.adapter_start_layer if workload.name == "adapter" else 0
        backward = float(max(model.num_layers - start, 0)) if trains else 0.0
        keeps_products = config.activation_checkpointing.every == "per_op"
        is_recomputed = trains and not keeps_products
        whole = config.precision.backend == "transformer_engine"
        return cls(
            recomputed=float(arithmetic.num_recomputed_blocks(model.num_layers, config)) if is_recomputed else 0.0,
            backward=backward,
            weights=0.0 if workload.name in arithmetic.PEFT_WORKLOADS else backward,
            repeats_down=bool(model.dropout) or whole,
            trains=trains,
        )


def split_seconds(
    products: Iterable[Product], element: float, flops_per_s: float, bytes_per_s: float | None
) -> tuple[float, float]:
    """Seconds of what computes and of what waits for memory, at the data sheet's rates; `element`: bytes of one."""
    computing = waiting = 0.0
    for one in products:
        compute_s = one.flops / flops_per_s
        memory_s = one.num_bytes(element) / bytes_per_s if bytes_per_s else 0.0
        if memory_s > compute_s:
            waiting += memory_s
        else:
            computing += compute_s
    return computing, waiting
