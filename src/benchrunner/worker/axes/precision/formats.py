"""Number formats: how parameters are stored, what the forward pass computes in, what reductions carry."""

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch

from benchrunner.core.cell import Cell
from benchrunner.core.rank_result import Choices
from benchrunner.worker.axes.precision import float8_te, float8_torchao, nf4
from benchrunner.worker.axes.precision.loss_scale import CountingScaler
from benchrunner.worker.model.decoder import Decoder

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

ContextFactory = Callable[[], AbstractContextManager[object]]


@dataclass(frozen=True, slots=True)
class PolicyDtypes:
    """What FSDP's mixed-precision policy casts to; None: leave as stored."""

    param: torch.dtype | None
    reduce: torch.dtype | None


def storage_dtype(cell: Cell) -> torch.dtype:
    """The dtype that trainable parameters (and so gradients and optimizer state) are stored in."""
    return DTYPES.get(cell.config.precision.param_dtype, torch.bfloat16)


def activation_dtype(cell: Cell) -> torch.dtype:
    """The dtype of the residual stream where nothing else decides: buffers are made in it."""
    return DTYPES.get(cell.config.precision.compute_dtype, torch.bfloat16)


def mixed_by(cell: Cell) -> str | None:
    """How a mixed precision is made: `policy`, `autocast`, or None when storage and compute agree."""
    if storage_dtype(cell) == activation_dtype(cell):
        return None
    default = "policy" if cell.config.strategy.kind == "fsdp" else "autocast"
    return cell.config.strategy.mixed_precision_by or default


def fsdp_policy_dtypes(cell: Cell) -> PolicyDtypes:
    """The dtypes of FSDP's policy: parameters are cast for compute only when the policy does the mixing."""
    compute = activation_dtype(cell) if mixed_by(cell) == "policy" else None
    return PolicyDtypes(param=compute, reduce=DTYPES[cell.config.precision.reduce_dtype])


def keep_linears(decoder: Decoder, cell: Cell, device: torch.device) -> None:
    """Leave every linear as it is."""


def loss_scaler(cell: Cell, device: torch.device, *, by_engine: bool = False) -> CountingScaler:
    """The gradient scaler of the training loop; it does nothing for formats that need none, or if the engine scales."""
    return CountingScaler(device.type, enabled=PRECISIONS[cell.axes["precision"]].scales_loss and not by_engine)


def plain_forward(cell: Cell, device: torch.device) -> ContextFactory:
    """Compute in the stored dtype."""
    return contextlib.nullcontext


def autocast_forward(cell: Cell, device: torch.device) -> ContextFactory:
    """Autocast to the compute dtype, unless FSDP's policy does the mixing."""
    if mixed_by(cell) != "autocast":
        return contextlib.nullcontext
    return lambda: torch.autocast(device.type, dtype=activation_dtype(cell))


@dataclass(frozen=True, slots=True, kw_only=True)
class Precision:
    """What a precision option does at the two moments that concern it."""

    convert: Callable[[Decoder, Cell, torch.device], Choices | None] = keep_linears
    """Swap modules of the decoder while it is on meta; returns choices to record."""
    forward: Callable[[Cell, torch.device], ContextFactory] = plain_forward
    """A factory of the context that every forward pass runs in."""
    checkpoint: Callable[[Cell], Callable[..., Any] | None] = lambda cell: None
    """The library's own activation checkpointing; None: torch's."""
    scales_loss: bool = False
    """Whether gradients would underflow without a scaled loss."""
    packs: bool = False
    """Whether `convert` makes the weights already, on the device: what is packed cannot be filled after sharding."""


PRECISIONS: dict[str, Precision] = {
    "fp32": Precision(),
    "bf16": Precision(),
    "bf16-mixed": Precision(forward=autocast_forward),
    "fp16-mixed": Precision(forward=autocast_forward, scales_loss=True),
    "fp8": Precision(convert=float8_te.convert, forward=float8_te.forward, checkpoint=float8_te.checkpoint),
    "fp8-torchao": Precision(convert=float8_torchao.convert),
    "nf4": Precision(convert=nf4.quantise, packs=True),
    "nf4-dq": Precision(convert=nf4.quantise, packs=True),
}
