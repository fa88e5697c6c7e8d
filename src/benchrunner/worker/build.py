"""The ordered recipe from a cell to a model that can step, with the reason for the order."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import nn

from benchrunner.cell import Cell
from benchrunner.worker import activation_checkpointing, compile, precision, strategy
from benchrunner.worker.context import Context
from benchrunner.worker.model import Decoder
from benchrunner.worker.optimizer import make_optimizer
from benchrunner.worker.weights import fill_parameters


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A model on its device, wrapped and ready, and what was counted on the way."""

    decoder: Decoder
    """The bare decoder inside the wrappers."""
    model: nn.Module
    """What the loop calls: `model(tokens, targets)` is the mean loss."""
    forward_context: Callable[[], AbstractContextManager[object]]
    num_parameters: int
    """Whole model, tied head once, before any packing or sharding."""
    num_trainable_parameters: int


def build(context: Context) -> Built:
    """Build the cell's model.

    1. On meta: nothing is allocated before its final place is known.
    2. Counted here: packing and sharding change what `numel` says.
    3. The precision swaps modules that can live on meta.
    4. Activation checkpointing, then compile in place, then FSDP: FSDP's hooks must surround the recomputation, and
       stay outside the compiled graph.
    5. Materialised after sharding, so that a rank never holds the whole model; ties and buffers do not survive
       `to_empty`. Every parameter is filled in full by name and each rank keeps its shard: all strategies start alike.
    6. DDP takes real parameters; whole-model compile goes around DDP and FSDP alike.
    """
    cell, device = context.cell, context.device
    number_format = precision.PRECISIONS[cell.axes["precision"]]
    compiler = compile.COMPILERS[cell.axes["compile"]]
    compile.configure(cell)
    torch.set_float32_matmul_precision("highest")
    decoder = decoder_on_meta(cell)
    num_parameters, num_trainable = count_parameters(decoder)
    number_format.convert(decoder, cell, device)
    activation_checkpointing.APPLY[cell.axes["activation_checkpointing"]](
        decoder, cell.config["activation_checkpointing"]
    )
    compiler.blocks(decoder, cell.config["compile"])
    kind = cell.get("strategy.kind")
    if kind in strategy.SHARD:
        strategy.SHARD[kind](decoder, context)
    materialise(decoder, cell, device)
    model: nn.Module = strategy.WRAP[kind](decoder, context) if kind in strategy.WRAP else decoder
    return Built(
        decoder=decoder,
        model=compiler.model(model, cell.config["compile"]),
        forward_context=number_format.forward(cell, device),
        num_parameters=num_parameters,
        num_trainable_parameters=num_trainable,
    )


def decoder_on_meta(cell: Cell) -> Decoder:
    """The cell's decoder without storage, in the dtype that its parameters are kept in."""
    with torch.device("meta"):
        decoder = Decoder(
            cell.config["model"],
            loss_chunk_tokens=cell.get("workload.loss_chunk_tokens"),
            explicit_attention=cell.get("attention") == "explicit",
            num_positions=cell.sizes.seq_len,
        )
    return decoder.to(precision.storage_dtype(cell))


def count_parameters(module: nn.Module) -> tuple[int, int]:
    """All parameters and the trainable ones; a shared parameter counts once."""
    parameters = list(module.parameters())
    return sum(p.numel() for p in parameters), sum(p.numel() for p in parameters if p.requires_grad)


def materialise(decoder: Decoder, cell: Cell, device: torch.device) -> None:
    """Give every parameter and buffer its storage and its value."""
    decoder.to_empty(device=device)
    decoder.tie_weights()
    decoder.reset_buffers(device, precision.activation_dtype(cell))
    fill_parameters(decoder, seed=cell.get("seed"), std=cell.get("model.init_std"), device=device)


def build_optimizer(built: Built, cell: Cell) -> torch.optim.Optimizer:
    """The optimizer comes last: it must hold the parameters as they are at the end (sharded, on the device)."""
    return make_optimizer(built.decoder, cell.config["optimizer"])
