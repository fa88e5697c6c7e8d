"""The update rule, over the parameters that train."""

from collections.abc import Callable, Iterable

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from benchrunner.core.schema import OptimizerConfig


def adamw(parameters: Iterable[nn.Parameter], options: OptimizerConfig) -> torch.optim.Optimizer:
    """AdamW in one fused kernel a dtype, or by foreach; its two moments have the parameters' dtype."""
    fused = bool(options.fused)
    return torch.optim.AdamW(
        parameters, lr=options.lr, weight_decay=options.weight_decay, fused=fused, foreach=not fused
    )


def sgd(parameters: Iterable[nn.Parameter], options: OptimizerConfig) -> torch.optim.Optimizer:
    """Plain SGD: no state.

    The fused kernel knows no shards (DTensor has no strategy for it), and torch's for the CPU leaves most elements of
    16-bit parameters as they are (2.13: `torch.ones(32, dtype=bfloat16)` does not move): both go by foreach.
    """
    parameters = list(parameters)
    fuses = all(parameter.is_cuda and not isinstance(parameter, DTensor) for parameter in parameters)
    kernel = {"fused": True} if fuses else {"foreach": True}
    return torch.optim.SGD(parameters, lr=options.lr, weight_decay=options.weight_decay, **kernel)


def paged_adamw(parameters: Iterable[nn.Parameter], options: OptimizerConfig) -> torch.optim.Optimizer:
    """bitsandbytes' AdamW: fp32 moments in memory that the driver moves between device and host page by page."""
    import bitsandbytes

    made: torch.optim.Optimizer = bitsandbytes.optim.PagedAdamW(
        parameters, lr=options.lr, weight_decay=options.weight_decay, optim_bits=32
    )
    return made


OPTIMIZERS: dict[str, Callable[[Iterable[nn.Parameter], OptimizerConfig], torch.optim.Optimizer]] = {
    "adamw": adamw,
    "sgd": sgd,
    "paged-adamw": paged_adamw,
}


def make_optimizer(model: nn.Module, options: OptimizerConfig) -> torch.optim.Optimizer:
    """The optimizer over `model`'s trainable parameters."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return OPTIMIZERS[options.name](trainable, options)
