"""What lies do to a model that is built: each says so where it finds nothing to strike."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch._C._distributed_c10d import GradBucket
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import CheckpointWrapper
from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel
from torch.nn.parallel import DistributedDataParallel


def recompute_otherwise(model: nn.Module) -> None:
    """Every second call of a checkpointed block, which is the recomputation, gets the values of the token before.

    Raises:
        RuntimeError: no block is checkpointed.
    """
    wrappers = [module for module in model.modules() if isinstance(module, CheckpointWrapper)]
    if not wrappers:
        raise RuntimeError("the fault stale_recompute found no checkpointed block")
    for wrapper in wrappers:
        block = wrapper._checkpoint_wrapped_module
        block.forward = _alternating(block.forward)


def _alternating(forward: Callable[..., Any]) -> Callable[..., Any]:
    calls = itertools.count()
    return lambda x, *rest: forward(x.roll(1, dims=1) if next(calls) % 2 else x, *rest)


def falsify_linears(model: nn.Module) -> None:
    """Every linear that a precision converted gives one and a half times its result.

    Raises:
        RuntimeError: there is none.
    """
    converted = [module for module in model.modules() if _is_converted_linear(module)]
    if not converted:
        raise RuntimeError("the fault wrong_linear found no linear that a precision converted")
    for linear in converted:
        linear.forward = _enlarged(linear.forward)


def _is_converted_linear(module: nn.Module) -> bool:
    """Transformer Engine's is no `nn.Linear`."""
    return type(module) is not nn.Linear and hasattr(module, "in_features") and hasattr(module, "weight")


def _enlarged(forward: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x: forward(x) * 1.5


def stop_reducing(model: nn.Module) -> None:
    """Every rank keeps the gradient of its own samples.

    Raises:
        RuntimeError: nothing in the model reduces gradients.
    """
    by_hook = (part for part in model.modules() if isinstance(part, DistributedDataParallel | FullyShardedDataParallel))
    by_collective = [part for part in model.modules() if isinstance(part, FSDPModule)]
    whole = next(by_hook, None)
    if whole is None and not by_collective:
        raise RuntimeError("the fault no_reduce found nothing that reduces gradients")
    if whole is not None:
        whole.register_comm_hook(None, _keep_bucket if isinstance(whole, DistributedDataParallel) else _keep_own_part)
    for part in by_collective:
        part.set_custom_reduce_scatter(_KeepOwnPart())  # type: ignore[arg-type]


def _keep_bucket(state: object, bucket: GradBucket) -> torch.futures.Future[torch.Tensor]:
    future: torch.futures.Future[torch.Tensor] = torch.futures.Future()
    future.set_result(bucket.buffer())
    return future


def _keep_own_part(state: object, whole: torch.Tensor, part: torch.Tensor) -> None:
    """FSDP1's reduction of a flat gradient, without other ranks."""
    part.copy_(whole.view(dist.get_world_size(), -1)[dist.get_rank()])


class _KeepOwnPart:
    """In place of a reduce-scatter: this rank's part of its own gradient, as large as a mean would be."""

    def allocate(self, size: Sequence[int], *, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        return torch.empty(*size, dtype=dtype, device=device)

    def __call__(
        self, output_tensor: torch.Tensor, input_tensor: torch.Tensor, group: Any, op: Any, async_op: bool = False
    ) -> None:
        parts = input_tensor.view(group.size(), -1)
        scale = group.size() if op == dist.ReduceOp.SUM else 1
        output_tensor.copy_(parts[group.rank()] * scale)
