"""A few elements of each parameter or gradient: enough to see what moved or was reduced, small enough to keep."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from benchrunner.worker.axes.precision.nf4 import packed_linears
from benchrunner.worker.model.weights import canonical_name

MAX_ELEMENTS = 4096
"""Elements kept of one tensor."""

Samples = dict[str, Tensor]
"""Canonical parameter name → some of its elements on this rank, fp32 on the host."""


def local(tensor: Tensor) -> Tensor:
    """What this rank holds of a tensor."""
    held: Tensor = tensor.to_local() if isinstance(tensor, DTensor) else tensor
    return held.detach()


def sample(tensor: Tensor) -> Tensor:
    """At most MAX_ELEMENTS of this rank's elements, evenly spread, in an order that depends on the shape alone."""
    flat = local(tensor).reshape(-1)
    stride = max(1, -(-flat.numel() // MAX_ELEMENTS))
    # An even stride would sample a single column of most matrices.
    stride += stride > 1 and stride % 2 == 0
    return flat[::stride].to("cpu", torch.float32, copy=True)


def floating_parameters(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Canonical names and parameters that hold numbers: packed 4-bit weights, of whatever dtype, are left out."""
    packed = {f"{name}.weight" for name in packed_linears(module)}
    for raw_name, parameter in module.named_parameters():
        name = canonical_name(raw_name)
        if parameter.is_floating_point() and name not in packed:
            yield name, parameter


def sample_parameters(module: nn.Module) -> Samples:
    """Samples of all parameters that hold numbers."""
    return {name: sample(parameter) for name, parameter in floating_parameters(module)}


def sample_gradients(module: nn.Module) -> Samples:
    """Samples of all gradients that are there."""
    return {
        name: sample(parameter.grad) for name, parameter in floating_parameters(module) if parameter.grad is not None
    }


def gradient_norms(module: nn.Module) -> dict[str, float]:
    """Name → norm of this rank's part of the gradient of every trainable parameter; 0 where there is none."""
    trainable = [(name, parameter) for name, parameter in floating_parameters(module) if parameter.requires_grad]
    if not trainable:
        return {}
    norms = [_norm(parameter) for _, parameter in trainable]
    values: list[float] = torch.stack(norms).tolist()
    return {name: value for (name, _), value in zip(trainable, values, strict=True)}


def _norm(parameter: nn.Parameter) -> Tensor:
    if parameter.grad is None:
        return torch.zeros((), device=local(parameter).device)
    norm: Tensor = torch.linalg.vector_norm(local(parameter.grad), dtype=torch.float32)
    return norm
