"""The update rule, over the parameters that train."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn


def adamw(parameters: Iterable[nn.Parameter], options: Mapping[str, Any]) -> torch.optim.Optimizer:
    """AdamW in one fused kernel a dtype; its two moments have the parameters' dtype."""
    return torch.optim.AdamW(parameters, lr=options["lr"], weight_decay=options["weight_decay"], fused=True)


def sgd(parameters: Iterable[nn.Parameter], options: Mapping[str, Any]) -> torch.optim.Optimizer:
    """Plain SGD: no state."""
    return torch.optim.SGD(parameters, lr=options["lr"], weight_decay=options["weight_decay"], fused=True)


OPTIMIZERS: dict[str, Callable[[Iterable[nn.Parameter], Mapping[str, Any]], torch.optim.Optimizer]] = {
    "adamw": adamw,
    "sgd": sgd,
}


def make_optimizer(model: nn.Module, options: Mapping[str, Any]) -> torch.optim.Optimizer:
    """The optimizer over `model`'s trainable parameters."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return OPTIMIZERS[options["name"]](trainable, options)
