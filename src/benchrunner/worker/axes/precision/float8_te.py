"""fp8 by Transformer Engine: its linears in place of torch's, its scaling recipes, its activation checkpointing.

Only what its documentation calls public is used, but for `_get_weight_and_bias_tensors`, which padding overrides, and
`_is_fsdp2`, which it would search for in the middle of a traced forward pass.
"""

import contextlib
import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from benchrunner.core.cell import Cell
from benchrunner.core.errors import Unsupported
from benchrunner.core.rank_result import Choices
from benchrunner.worker.axes.precision import float8
from benchrunner.worker.model.decoder import Decoder

AMAX_HISTORY_LENGTH = 16
"""Steps whose largest magnitude sets the scale of the delayed recipe."""

_NOT_TRACED = "Transformer Engine keeps scales or cached weights in Python objects"

_LOAD_ERRORS = (ImportError, OSError, RuntimeError, AssertionError)


def load() -> ModuleType:
    """`transformer_engine.pytorch`.

    Raises:
        Unsupported: it is not installed, or cannot be loaded here, with its own words.
    """
    try:
        import transformer_engine.pytorch as te
    except _LOAD_ERRORS as error:
        raise _cannot_load(error) from error
    return te  # type: ignore[no-any-return]


def _cannot_load(error: Exception) -> Unsupported:
    if isinstance(error, ModuleNotFoundError) and (error.name or "").startswith("transformer_engine"):
        return Unsupported("missing.transformer_engine", "transformer-engine is not installed with its PyTorch part")
    words = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    if "cudnn" in str(error).lower():
        return Unsupported(
            "runtime.cudnn",
            "Transformer Engine found another cuDNN than PyTorch's: point CUDNN_HOME and LD_LIBRARY_PATH at the "
            f"nvidia/cudnn folder beside PyTorch ({words})",
        )
    return Unsupported("runtime.transformer_engine", f"Transformer Engine cannot be loaded: {words}")


@functools.cache
def make_recipe(name: str) -> Any:
    """The scaling recipe: delayed (scales from past steps), current (from the tensor itself), block (128 at a time).

    Raises:
        Unsupported: this device cannot compute it, in the library's words.
    """
    te = load()
    from transformer_engine.common import recipe

    available, reason = te.is_fp8_available(return_reason=True)
    if available and name == "block":
        available, reason = te.is_fp8_block_scaling_available(return_reason=True)
    if not available:
        raise Unsupported("runtime.fp8_device", f"Transformer Engine: {reason}")
    if name == "delayed":
        return recipe.DelayedScaling(
            fp8_format=recipe.Format.HYBRID, amax_history_len=AMAX_HISTORY_LENGTH, amax_compute_algo="max"
        )
    return {"current": recipe.Float8CurrentScaling, "block": recipe.Float8BlockScaling}[name]()


def autocast(cell: Cell) -> AbstractContextManager[object]:
    """Inside, Transformer Engine's modules compute in fp8; scales are agreed on by all data-parallel ranks."""
    te, recipe = load(), make_recipe(cell.config.precision.recipe)
    group = torch.distributed.group.WORLD if torch.distributed.is_initialized() else None
    if hasattr(te, "autocast"):
        return te.autocast(enabled=True, recipe=recipe, amax_reduction_group=group)  # type: ignore[no-any-return]
    return te.fp8_autocast(enabled=True, fp8_recipe=recipe, fp8_group=group)  # type: ignore[no-any-return]


def forward(cell: Cell, device: torch.device) -> Callable[[], AbstractContextManager[object]]:
    """A factory of the context that every forward pass runs in."""
    return lambda: autocast(cell)


def caches_weights(cell: Cell) -> bool:
    """Whether fp8 copies of the weights live from one micro-step to the next.

    Not under FSDP, which frees what it gathered; not in compiled graphs, which cannot hold the library's cache.
    """
    if cell.sizes.accumulation_steps < 2 or cell.config.strategy.kind == "fsdp":
        return False
    return not _is_traced(cell)


def _is_traced(cell: Cell) -> bool:
    """Whether a compiler sees into the linears: it cannot where a recipe keeps its scales from step to step."""
    return cell.axes["compile"] != "eager" and cell.config.precision.recipe != "delayed"


def convert(decoder: Decoder, cell: Cell, device: torch.device) -> Choices:
    """Swap the linears in place, still on meta (names and parameters stay); returns the choices to record.

    Raises:
        Unsupported: a size that fp8 cannot take, or the library or the device cannot.
    """
    linears = float8.float8_linears(decoder, cell)
    float8.check_sizes(linears, cell)
    load()
    make_recipe(cell.config.precision.recipe)
    for name, linear in linears.items():
        float8.replace_module(decoder, name, make_linear(linear, cell))
    choices = float8.describe(decoder, linears, cell, padded=bool(cell.config.precision.pad))
    return {"fp8": {**choices, "weight_cache": caches_weights(cell)}}


def make_linear(linear: nn.Linear, cell: Cell) -> nn.Module:
    """Transformer Engine's linear of the same shape and dtype on meta, values to be filled in."""
    kind = _padding_class() if cell.config.precision.pad and _may_pad(linear, cell) else _linear_class()
    has_bias = linear.bias is not None
    made = kind(linear.in_features, linear.out_features, bias=has_bias, params_dtype=linear.weight.dtype, device="meta")
    made.caches, made.traced = caches_weights(cell), _is_traced(cell)
    made._is_fsdp2 = cell.config.strategy.kind == "fsdp"
    return made  # type: ignore[no-any-return]


def _may_pad(linear: nn.Linear, cell: Cell) -> bool:
    any_length = cell.config.workload.lengths != "fixed"
    few_rows = float8.excess(float8.num_rows(cell), float8.rows_multiple(cell)) > 0
    return any_length or few_rows or float8.needs_padding(linear)


class StepCounter:
    """How many optimizer steps this process made. (Fused optimizers do not count up a tensor's version.)"""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, *arguments: Any) -> None:
        """Called after every step."""
        self.count += 1


@functools.cache
def optimizer_steps() -> StepCounter:
    """The one counter, which starts when it is first asked for."""
    counter = StepCounter()
    register_optimizer_step_post_hook(counter)
    return counter


@functools.cache
def _linear_class() -> Any:
    te = load()

    class Float8Linear(te.Linear):  # type: ignore[misc, name-defined]
        """Decides by itself when its cached fp8 weight is stale, and stays out of graphs that cannot hold it."""

        caches = False
        traced = False
        _cast_at: tuple[int, int] | None = None

        def forward(self, inp: Tensor) -> Tensor:
            return self._multiply(inp) if self.traced else self._outside_graphs(inp)

        @torch.compiler.disable(reason=_NOT_TRACED)  # type: ignore[no-untyped-call, untyped-decorator]
        def _outside_graphs(self, inp: Tensor) -> Tensor:
            return self._multiply(inp)

        def _multiply(self, inp: Tensor) -> Tensor:
            result: Tensor = super().forward(inp, is_first_microbatch=self._is_stale() if self.caches else None)
            return result

        def _is_stale(self) -> bool:
            """Whether the weight may have changed since it was last cast."""
            now, before = (optimizer_steps().count, self.weight._version), self._cast_at
            self.__dict__["_cast_at"] = now
            return now != before

    return Float8Linear


@functools.cache
def _padding_class() -> Any:
    if not hasattr(_linear_class(), "_get_weight_and_bias_tensors"):
        raise Unsupported("runtime.fp8_padding", "this version of Transformer Engine cannot be made to pad weights")

    class PaddingLinear(_linear_class()):  # type: ignore[misc]
        """Parameters keep their true shape; zeros are added for the product and cut off after it."""

        def forward(self, inp: Tensor) -> Tensor:
            return float8.call_padded(inp, self.out_features, super().forward)

        def _get_weight_and_bias_tensors(self) -> tuple[Tensor, Tensor | None]:
            weight, bias = super()._get_weight_and_bias_tensors()
            if bias is not None:
                bias = F.pad(bias, (0, float8.excess(self.out_features)))
            return float8.pad_matrix(weight), bias

    return PaddingLinear


class _Recomputation:
    """Around a recomputed forward pass: fp8 as in the first one, without counting a step of the scales.

    Transformer Engine updates all scales when its outermost context ends with gradients on, and its checkpoint opens
    one for every block that it recomputes: the history of magnitudes would fill with zeros, and every rank would
    reduce them once more a block. Inside this context its own is not the outermost.
    """

    def __init__(self, cell: Cell) -> None:
        self._outermost = autocast(cell)

    def __enter__(self) -> None:
        self._outermost.__enter__()

    def __exit__(self, *raised: Any) -> None:
        with torch.no_grad():
            self._outermost.__exit__(*raised)


def checkpoint(cell: Cell) -> Callable[..., Any]:
    """Transformer Engine's checkpoint (non-reentrant) in place of torch's: it replays the scales of the first pass."""
    te = load()

    def contexts() -> tuple[AbstractContextManager[object], AbstractContextManager[object]]:
        return contextlib.nullcontext(), _Recomputation(cell)

    return functools.partial(te.checkpoint, use_reentrant=False, context_fn=contexts)
