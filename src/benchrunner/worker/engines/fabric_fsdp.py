"""Arguments of Fabric's FSDPStrategy, which is torch's FSDP1: flat parameters, made as units are wrapped."""

from typing import Any

import torch
from torch import nn

from benchrunner.core.cell import Cell
from benchrunner.worker.axes import strategy
from benchrunner.worker.axes.precision import formats
from benchrunner.worker.context import Context
from benchrunner.worker.model.decoder import Decoder
from benchrunner.worker.model.weights import canonical_name, full_tensor

SHARDING: dict[int | None, str] = {2: "SHARD_GRAD_OP", 3: "FULL_SHARD"}
"""Stage → FSDP1's name for it."""


def fsdp_options(context: Context) -> dict[str, Any]:
    """Keyword arguments for FSDPStrategy: the dtypes that the cell spells, and Fabric's defaults for the rest."""
    units = Units(context)
    return {
        "sharding_strategy": SHARDING[context.cell.config.strategy.stage],
        "mixed_precision": mixed_precision(context.cell),
        "auto_wrap_policy": units.wraps,
        "param_init_fn": units.fill,
        **_prefetch(context.cell),
    }


def mixed_precision(cell: Cell) -> Any:
    """What FSDP1 casts: parameters for compute unless only autocast does the mixing, gradients for the reduction."""
    from torch.distributed.fsdp import MixedPrecision

    only_autocast = cell.config.strategy.mixed_precision_by == "autocast"
    return MixedPrecision(
        param_dtype=None if only_autocast else formats.activation_dtype(cell),
        reduce_dtype=formats.DTYPES[cell.config.precision.reduce_dtype],
    )


def _prefetch(cell: Cell) -> dict[str, Any]:
    """The option, or nothing where the library's default (pre) shall hold."""
    from torch.distributed.fsdp import BackwardPrefetch

    chosen = cell.config.strategy.backward_prefetch
    if chosen is None:
        return {}
    names = {"none": None, "pre": BackwardPrefetch.BACKWARD_PRE, "post": BackwardPrefetch.BACKWARD_POST}
    return {"backward_prefetch": names[chosen]}


class Units:
    """Which modules FSDP1 flattens together, and how it makes them from a decoder on meta.

    FSDP calls `wraps` for every module of the decoder, root first; then, for a unit at a time, inner ones first,
    `fill` for each module in it. So no rank ever holds more than one whole unit besides its shards.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._units: set[int] | None = None
        self._names: dict[int, str] = {}
        self._made: dict[int, tuple[nn.Parameter, nn.Parameter]] = {}
        """Parameters on meta → the real ones: a shared one is made once."""

    def wraps(self, module: nn.Module, recurse: bool, nonwrapped_numel: int) -> bool:
        """FSDP's question about `module`: look into it (`recurse`), or make it a unit?"""
        if self._units is None:
            assert isinstance(module, Decoder), "the root comes first"
            self._units = {id(unit) for unit in strategy.units(module, self._context.cell.config.strategy.wrap)}
            self._names = {id(part): name for name, part in module.named_modules()}
        return recurse or id(module) in self._units

    @torch.no_grad()
    def fill(self, module: nn.Module) -> None:
        """Give the module's own parameters and buffers their values, in full."""
        for leaf, parameter in list(module.named_parameters(recurse=False)):
            if parameter.is_meta:
                setattr(module, leaf, self._real(f"{self._names[id(module)]}.{leaf}", parameter))
        if isinstance(module, Decoder):
            module.reset_buffers(self._context.device, formats.activation_dtype(self._context.cell))

    def _real(self, raw_name: str, parameter: nn.Parameter) -> nn.Parameter:
        if id(parameter) not in self._made:
            cell, name = self._context.cell, canonical_name(raw_name)
            seed, std, device = cell.config.seed, cell.config.model.init_std, self._context.device
            full = full_tensor(name, parameter.shape, seed=seed, std=std, device=device).to(parameter.dtype)
            self._made[id(parameter)] = parameter, nn.Parameter(full, requires_grad=parameter.requires_grad)
        return self._made[id(parameter)][1]
