"""Kernels as a GPU has them, for fake tensors on a CPU: what they keep for the backward pass is what counts.

On a CPU RMSNorm is written out, which keeps 192 MiB a block of Llama-2-7B more than the fused kernel, and attention
takes other ways by shape; a mask of dropout has the input's format there, not a byte an element. All are put in place
by their sizes alone: no value is ever computed.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchrunner.core import arithmetic
from benchrunner.core.cell import Cell
from benchrunner.worker.axes import activation_checkpointing
from benchrunner.worker.axes.precision import nf4


class FusedRMSNorm(torch.autograd.Function):
    """Keeps its input and a float32 a row."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        """x [..., width] → the same."""
        ctx.save_for_backward(x, weight, x.new_empty(x.shape[:-1], dtype=torch.float32))
        return torch.empty_like(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        """Of input and weight."""
        x, weight, _ = ctx.saved_tensors
        return torch.empty_like(x), torch.empty_like(weight) if ctx.needs_input_grad[1] else None


class FusedDropout(torch.autograd.Function):
    """Keeps a byte an element, where a CPU keeps a mask in the input's format."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """x → the same."""
        ctx.save_for_backward(x.new_empty(x.shape, dtype=torch.bool))
        return torch.empty_like(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        """Of the input."""
        return torch.empty_like(gradients[0])


@torch.library.custom_op("benchrunner::fused_attention", mutates_args=())
def fused_attention(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Output, laid out with the heads inside the tokens, and a float32 a query and head.

    An operator of its own, so that checkpointing by operation can keep what it returns.
    """
    batch, heads, length, size = q.shape
    out = q.new_empty(batch, length, heads, size).transpose(1, 2)
    return out, q.new_empty(batch, heads, length, dtype=torch.float32)


fused_attention.register_fake(fused_attention._init_fn)


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs, *output)


@torch.library.custom_op("benchrunner::fused_attention_backward", mutates_args=())
def fused_attention_backward(
    gradient: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, sums: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of queries, keys and values; it needs all that was kept, which a partitioner must see."""
    return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)


fused_attention_backward.register_fake(fused_attention_backward._init_fn)


def _attention_gradients(ctx: Any, *gradients: Tensor) -> Any:
    return fused_attention_backward(gradients[0], *ctx.saved_tensors)


fused_attention.register_autograd(_attention_gradients, setup_context=_keep)


def rms_norm(self: nn.RMSNorm, x: Tensor) -> Tensor:
    """In place of `nn.RMSNorm.forward`."""
    y: Tensor = FusedRMSNorm.apply(x, self.weight)  # type: ignore[no-untyped-call]
    return y


def dropout(self: nn.Dropout, x: Tensor) -> Tensor:
    """In place of `nn.Dropout.forward`."""
    y: Tensor = FusedDropout.apply(x) if self.training and self.p else x  # type: ignore[no-untyped-call]
    return y


def attention(q: Tensor, k: Tensor, v: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """In place of `F.scaled_dot_product_attention`; casts as autocast does before it."""
    if torch.is_autocast_enabled("cpu"):
        dtype = torch.get_autocast_dtype("cpu")
        q, k, v = q.to(dtype), k.to(dtype), v.to(dtype)
    y: Tensor = fused_attention(q, k, v)[0]
    return y


class PackedProduct(torch.autograd.Function):
    """bitsandbytes' product with a 4-bit matrix: unpacked for each of the passes, and only the packed one is kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, packed: Tensor, shape: tuple[int, int]) -> Tensor:
        """x [..., in] → [..., out]."""
        ctx.packed, ctx.shape = packed, shape
        return x @ x.new_empty(shape).t()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        """Of the input; the matrix is frozen."""
        return gradients[0] @ gradients[0].new_empty(ctx.shape), None, None


class PackedLinear(nn.Module):
    """A linear of bitsandbytes by its sizes: two weights a byte, a scale for each block of 64 of them."""

    BLOCK, NESTED_BLOCK, CODES, NESTED_CODES = 64, 256, 16, 256

    def __init__(self, linear: nn.Linear, *, nested: bool) -> None:
        super().__init__()
        self.in_features, self.out_features, self.nested = linear.in_features, linear.out_features, nested
        num_weights, width = linear.in_features * linear.out_features, nf4.STORAGE_DTYPE.itemsize
        self.weight = nn.Parameter(linear.weight.new_empty(num_weights // 2 // width, 1).to(nf4.STORAGE_DTYPE), False)
        self.bias = linear.bias
        num_scales = -(-num_weights // self.BLOCK)
        scales = [(num_scales, torch.uint8 if nested else torch.float32), (self.CODES, torch.float32)]
        if nested:
            scales += [(-(-num_scales // self.NESTED_BLOCK), torch.float32), (self.NESTED_CODES + 1, torch.float32)]
        for index, (size, dtype) in enumerate(scales):
            self.register_buffer(f"scale{index}", torch.empty(size, dtype=dtype, device="meta"), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """x [..., in] → [..., out] in bf16."""
        shape, x = (self.out_features, self.in_features), x.to(torch.bfloat16)
        is_fused = x.numel() // self.in_features <= arithmetic.most_fused_rows(self.in_features, self.out_features)
        if not x.requires_grad and is_fused:
            y: Tensor = x.new_empty(*x.shape[:-1], self.out_features)
        else:
            y = PackedProduct.apply(x, self.weight, shape)  # type: ignore[no-untyped-call]
        return y if self.bias is None else y + self.bias


def packed(name: str, linear: nn.Linear, cell: Cell, device: torch.device) -> nn.Module:
    """In place of `nf4._quantised`, which packs real values."""
    return PackedLinear(linear, nested=cell.config.precision.param_dtype == "nf4-dq")


@contextmanager
def installed() -> Iterator[None]:
    """Inside, models use these kernels."""
    kept = activation_checkpointing.KEPT_OPERATIONS
    operator = torch.ops.benchrunner.fused_attention.default
    if operator not in kept:
        kept.append(operator)
    with (
        patch.object(nn.RMSNorm, "forward", rms_norm),
        patch.object(nn.Dropout, "forward", dropout),
        patch.object(F, "scaled_dot_product_attention", attention),
        patch.object(nf4, "_quantised", packed),
        patch.object(nf4, "_keep_products_when_checkpointing", lambda: None),
    ):
        yield
