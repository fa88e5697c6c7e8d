"""Spread the model over the ranks: one function a kind of strategy, by torch's own DDP and `fully_shard`."""

import functools
import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel

from benchrunner.worker.axes.precision.formats import fsdp_policy_dtypes
from benchrunner.worker.context import Context
from benchrunner.worker.model.decoder import Decoder


def shard(decoder: Decoder, context: Context, mesh: DeviceMesh | None = None) -> None:
    """FSDP2 in place: `units` are gathered one at a time, and what is left over with the root.

    All ranks in one row have a part each, unless `mesh` says otherwise.
    Stage 2 keeps the gathered parameters from forward to backward, stage 3 reshards them after each unit's forward.
    """
    cell = context.cell
    dtypes = fsdp_policy_dtypes(cell)
    policy = MixedPrecisionPolicy(param_dtype=dtypes.param, reduce_dtype=dtypes.reduce, output_dtype=None)
    wrap = functools.partial(
        fully_shard,
        mesh=mesh or init_device_mesh(context.device.type, (context.world_size,)),
        reshard_after_forward=cell.config.strategy.stage == 3,
        mp_policy=policy,
    )
    for unit in units(decoder, cell.config.strategy.wrap):
        wrap(unit)
    wrap(decoder)


def units(decoder: Decoder, granularity: str) -> list[nn.Module]:
    """The modules whose parameters are gathered together: every block, or every module that has any of its own.

    Inner ones come first. A matrix that embedding and head share can belong to one unit only: the root.
    """
    if granularity == "block":
        return list(decoder.blocks)
    in_root: list[nn.Module] = [decoder] + ([decoder.embedding, decoder.head] if decoder.model.tie_embeddings else [])
    owners = (module for module in decoder.modules() if next(module.parameters(recurse=False), None) is not None)
    return [module for module in reversed(list(owners)) if not any(module is one for one in in_root)]


def wrap_ddp(decoder: Decoder, context: Context) -> nn.Module:
    """A replica a rank; buffers are recomputed, not broadcast, and gradients live in the reduction buckets."""
    device_ids = [context.device.index] if context.device.type == "cuda" else None
    return DistributedDataParallel(decoder, device_ids=device_ids, **ddp_options())


def ddp_options() -> dict[str, Any]:
    """What every engine passes to DistributedDataParallel besides model and device."""
    known = inspect.signature(DistributedDataParallel).parameters
    sync_buffers = (
        "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    )  # before torch 2.13
    return {"gradient_as_bucket_view": True, "init_sync": False, sync_buffers: False}


def wrap_single(decoder: Decoder, context: Context) -> nn.Module:
    """One device: nothing to wrap."""
    assert context.world_size == 1
    return decoder


SHARD: dict[str, Callable[[Decoder, Context], None]] = {"fsdp": shard}
"""Strategy kind → what happens on meta, before materialising."""

WRAP: dict[str, Callable[[Decoder, Context], nn.Module]] = {"single": wrap_single, "ddp": wrap_ddp}
"""Strategy kind → what happens to the initialised model."""


def set_gradient_sync(model: nn.Module, sync: bool) -> None:
    """Whether the next backward pass reduces gradients over ranks (all but the last micro-step may leave it out)."""
    inner = getattr(model, "_orig_mod", model)
    if isinstance(inner, DistributedDataParallel):
        inner.require_backward_grad_sync = sync
    elif isinstance(inner, FSDPModule):
        inner.set_requires_gradient_sync(sync)


def gradient_sync(model: nn.Module, sync: bool) -> AbstractContextManager[object]:
    """Around a micro-step: whether its backward pass reduces gradients."""
    set_gradient_sync(model, sync)
    return nullcontext()


def syncs_every_micro_step(kind: str, accumulation_sync: str | None) -> bool:
    """Whether gradients are reduced in every micro-step: FSDP's default, so that they stay sharded."""
    return (accumulation_sync or ("every" if kind == "fsdp" else "last")) == "every"


def broadcast_free_mean(values: torch.Tensor, world_size: int) -> torch.Tensor:
    """The mean over ranks of a tensor of any shape (fp32), in place."""
    if world_size > 1:
        torch.distributed.all_reduce(values)
        values /= world_size
    return values
