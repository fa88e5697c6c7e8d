"""Kernels as a GPU has them, for fake tensors on a CPU: what they keep for the backward pass is what counts.

On a CPU RMSNorm is written out, which keeps 192 MiB a block of Llama-2-7B more than the fused kernel, and attention
takes other ways by shape. Both are put in place by their sizes alone: no value is ever computed.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchrunner.worker.axes import activation_checkpointing


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


def attention(q: Tensor, k: Tensor, v: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """In place of `F.scaled_dot_product_attention`; casts as autocast does before it."""
    if torch.is_autocast_enabled("cpu"):
        dtype = torch.get_autocast_dtype("cpu")
        q, k, v = q.to(dtype), k.to(dtype), v.to(dtype)
    y: Tensor = fused_attention(q, k, v)[0]
    return y


@contextmanager
def installed() -> Iterator[None]:
    """Inside, models use these kernels."""
    kept = activation_checkpointing.KEPT_OPERATIONS
    operator = torch.ops.benchrunner.fused_attention.default
    if operator not in kept:
        kept.append(operator)
    with patch.object(nn.RMSNorm, "forward", rms_norm), patch.object(F, "scaled_dot_product_attention", attention):
        yield
