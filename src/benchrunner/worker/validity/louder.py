"""A model with other values for the time of a question: those that tell more than the ones it starts from.

In a narrow model matrices of a small deviation leave attention uniform and activations straight, norm weights of 1 and
biases, gates and updates of 0 hide whether they count. The formulas take their weights from the model as it is, and
nothing else knows of the change: shapes, graphs and wrappers stay.
"""

import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel

from benchrunner.core.cell import Cell
from benchrunner.worker.axes.precision.nf4 import packed_linears
from benchrunner.worker.engines.built import Built
from benchrunner.worker.validity.exchange import Exchange
from benchrunner.worker.validity.sampling import floating_parameters, local

SPREAD = 1.4
"""Of a matrix's results, at most: Llama-2-7B has 1.28 at its start and keeps its own."""
AROUND = {"weight": 1.0, "scale": 1.0, "gate": 0.5}
"""End of the name of a vector → what its values are around; others around zero."""
DEVIATION = 0.25
DEVIATIONS = {"lora_b_query": 0.1, "lora_b_value": 0.1, "adapter_prompt": 1.0}
"""End of the name of a finetuning method's matrix → the deviation of its values: a prompt's are those of normed tokens;
small ones are looked at alike, wherever they stand.
"""
UNDROPPED = 0.2
"""Of LoRA's deviations where a graph drops values at random: what is dropped moves everything behind it as far as the
updates are large, and the formulas cannot draw the same.
"""


@contextmanager
def louder(built: Built, cell: Cell, exchange: Exchange) -> Iterator[None]:
    """Inside, matrices are larger by a power of two, which is exact, and vectors and updates have values of their own.

    Not for flat parameters (FSDP1), nor for scales that know the range of earlier values.
    """
    if not _may_change(built, cell):
        yield
        return
    factor = _factor(built, cell, exchange)
    kept = _start(built, factor, UNDROPPED if draws(cell) else 1.0)
    try:
        yield
    finally:
        _end(built, factor, kept)


def draws(cell: Cell) -> bool:
    """Whether something in the asked model drops values at random: a graph has that compiled in, eager can be told."""
    config = cell.config
    drops = config.model.dropout > 0 or (config.workload.name == "lora" and config.workload.lora_dropout > 0)
    return drops and cell.axes["compile"] != "eager"


def _may_change(built: Built, cell: Cell) -> bool:
    is_flat = any(isinstance(module, FullyShardedDataParallel) for module in built.model.modules())
    return not is_flat and cell.config.precision.backend != "transformer_engine"


def _factor(built: Built, cell: Cell, exchange: Exchange) -> float:
    """The same on every rank, whatever part of the matrices it has."""
    model = cell.config.model
    (deviation,) = exchange.most(_deviation(built))
    spread = (deviation or model.init_std) * math.sqrt(model.d_model)
    return 2.0 ** max(0, math.floor(math.log2(SPREAD / spread))) if spread > 0 else 1.0


def _deviation(built: Built) -> float:
    """Of this rank's matrices as they are, all together; 0 where all are packed."""
    matrices = [local(matrix) for matrix in _matrices(built)]
    count = sum(matrix.numel() for matrix in matrices)
    square = sum(float(torch.linalg.vector_norm(matrix, dtype=torch.float32)) ** 2 for matrix in matrices)
    return math.sqrt(square / max(1, count))


def _matrices(built: Built) -> Iterator[nn.Parameter]:
    """Those of the base that multiply: no table that is looked up, even if it is the head's too."""
    for name, parameter in floating_parameters(built.decoder):
        if parameter.ndim == 2 and name.endswith("weight") and "embedding" not in name:
            yield parameter


@torch.no_grad()
def _start(built: Built, factor: float, share: float) -> dict[str, Tensor]:
    """Change the values, LoRA's by a share; returns those that no multiplication brings back."""
    _reshard(built)
    kept = {}
    for name, parameter in floating_parameters(built.decoder):
        own = local(parameter)
        if parameter.ndim == 1 or _deviation_of(name):
            kept[name] = own.clone()
            own.copy_(_values(name, own) * (share if "lora" in name else 1.0))
    _scale(built, factor)
    return kept


@torch.no_grad()
def _end(built: Built, factor: float, kept: dict[str, Tensor]) -> None:
    _reshard(built)
    _scale(built, 1 / factor)
    for name, parameter in floating_parameters(built.decoder):
        if name in kept:
            local(parameter).copy_(kept[name])


def _reshard(built: Built) -> None:
    """Whole copies would keep the values of before."""
    for module in built.model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def _values(name: str, own: Tensor) -> Tensor:
    """Values that depend on the name alone, so that replicas stay alike."""
    generator = torch.Generator(own.device).manual_seed(zlib.crc32(name.encode()))
    drawn = torch.empty(own.shape, device=own.device).normal_(generator=generator)
    if deviation := _deviation_of(name):
        return deviation * drawn
    around = next((value for end, value in AROUND.items() if name.endswith(end)), 0.0)
    return around + DEVIATION * drawn


def _deviation_of(name: str) -> float | None:
    return next((value for end, value in DEVIATIONS.items() if name.endswith(end)), None)


def _scale(built: Built, factor: float) -> None:
    if factor == 1:
        return
    for matrix in _matrices(built):
        local(matrix).mul_(factor)
    for linear in packed_linears(built.decoder).values():
        for scales in _scales_of(linear):
            scales.mul_(factor)


def _scales_of(linear: nn.Module) -> list[Tensor]:
    """What a packed matrix is multiplied with, outermost."""
    state = linear.quant_state
    return [state.state2.absmax, state.offset] if state.nested else [state.absmax]  # type: ignore[union-attr,list-item]
