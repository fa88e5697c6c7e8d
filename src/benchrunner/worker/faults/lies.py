"""What the planted lies of `benchrunner.faults.LIES` do to a rank; called where `Context.fault_is` says so.

A lie runs to its end and prints plausible numbers: only a validity check can tell.
"""

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

_COUNTER = itertools.count()


def half(batch: torch.Tensor) -> torch.Tensor:
    """The first half of every sample [batch, length + 1]."""
    return batch[:, : (batch.shape[1] - 1) // 2 + 1]


def drop_one_gradient(module: nn.Module) -> None:
    """The first trainable parameter gets no gradient."""
    next(parameter for parameter in module.parameters() if parameter.requires_grad).grad = None


def compile_something() -> None:
    """Have Dynamo compile one more frame, with a constant that it has not seen."""
    constant = next(_COUNTER)
    torch.compile(lambda x: x + constant, backend="eager", dynamic=False)(torch.zeros(1))


@torch.no_grad()
def zero_norms(module: nn.Module) -> None:
    """Every norm's weight is zero, as memory that was never written often is."""
    for name, parameter in module.named_parameters():
        if "norm" in name and name.endswith("weight"):
            parameter.zero_()


def scale_gradients(module: nn.Module, factor: float) -> None:
    """Every gradient is `factor` times too large."""
    for parameter in module.parameters():
        if parameter.grad is not None:
            parameter.grad.mul_(factor)


def recompute_otherwise(module: nn.Module) -> None:
    """Every second call of a checkpointed block, which is the recomputation, gets the values of the token before."""
    for wrapper in module.modules():
        if isinstance(wrapper, CheckpointWrapper):
            block = wrapper._checkpoint_wrapped_module
            block.forward = _alternating(block.forward)


def _alternating(forward: Callable[..., Any]) -> Callable[..., Any]:
    calls = itertools.count()
    return lambda x, *rest: forward(x.roll(1, dims=1) if next(calls) % 2 else x, *rest)


def falsify_linears(module: nn.Module) -> None:
    """Every linear that a precision converted gives one and a half times its result.

    Raises:
        RuntimeError: there is none.
    """
    converted = [child for child in module.modules() if _is_converted_linear(child)]
    if not converted:
        raise RuntimeError("the fault wrong_linear found no linear that a precision converted")
    for child in converted:
        child.forward = _enlarged(child.forward)


def _is_converted_linear(module: nn.Module) -> bool:
    """Transformer Engine's is no `nn.Linear`."""
    return type(module) is not nn.Linear and hasattr(module, "in_features") and hasattr(module, "weight")


def _enlarged(forward: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x: forward(x) * 1.5


def stop_reducing(model: nn.Module) -> None:
    """Every rank keeps the gradient of its own samples."""
    if isinstance(model, DistributedDataParallel):
        model.register_comm_hook(None, _keep_bucket)
        return
    if isinstance(model, FullyShardedDataParallel):
        model.register_comm_hook(None, _keep_own_part)
        return
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_custom_reduce_scatter(_KeepOwnPart())  # type: ignore[arg-type]


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
