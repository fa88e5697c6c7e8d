"""The ordered recipe from a cell to a model that can step, with the reason for the order."""

import functools
from typing import cast

import torch
from torch import nn

from benchrunner.worker.axes import activation_checkpointing, compile, peft, strategy
from benchrunner.worker.axes.precision import formats, nf4
from benchrunner.worker.context import Context
from benchrunner.worker.engines.built import Built, count_parameters, decoder_on_meta, has_gradients, materialise
from benchrunner.worker.model.decoder import Decoder


def build_native(context: Context) -> Built:
    """Build the cell's model by torch's own means.

    1. On meta: nothing is allocated before its final place is known.
    2. Counted here: packing and sharding change what `numel` says.
    3. The precision swaps modules that can live on meta. Packed ones cannot: they are made here, one by one, and all
       the rest is materialised before sharding.
    4. A finetuning method freezes the base and adds its parameters, which no precision quantises.
    5. Activation checkpointing, then compile in place, then FSDP: FSDP's hooks must surround the recomputation, and
       stay outside the compiled graph.
    6. Materialised after sharding, so that a rank never holds the whole model; ties and buffers do not survive
       `to_empty`. Every parameter is filled in full by name and each rank keeps its shard: all strategies start alike.
    7. DDP takes real parameters; whole-model compile goes around DDP and FSDP alike. Without gradients DDP has
       nothing to do: its ranks are replicas on their own.
    """
    cell, device = context.cell, context.device
    number_format = formats.PRECISIONS[cell.axes["precision"]]
    compiler = compile.COMPILERS[cell.axes["compile"]]
    compile.configure(cell)
    torch.set_float32_matmul_precision("highest")
    decoder = decoder_on_meta(cell)
    num_parameters, num_trainable = count_parameters(decoder)
    choices = number_format.convert(decoder, cell, device)
    if peft.apply(decoder, cell.config.workload, formats.storage_dtype(cell)):
        num_trainable = count_parameters(decoder)[1]
    if number_format.packs:
        materialise(decoder, cell, device)
    activation_checkpointing.APPLY[cell.axes["activation_checkpointing"]](
        decoder, cell.config.activation_checkpointing, number_format.checkpoint(cell)
    )
    compiler.blocks(decoder, cell.config.compile)
    if not has_gradients(cell) and cell.config.compile.scope == "block":
        decoder.logits = compiler.function(decoder.logits, cell.config.compile)  # type: ignore[method-assign]
    kind = cell.config.strategy.kind
    compiler_distributes = compiler.distributes(cell) and (has_gradients(cell) or kind == "fsdp")
    if kind in strategy.SHARD and not compiler_distributes:
        strategy.SHARD[kind](decoder, context)
        nf4.check_bits(decoder, context)
    if not number_format.packs:
        materialise(decoder, cell, device)
    if compiler_distributes:
        return _distributed_by_compiler(decoder, context, num_parameters, num_trainable)
    wraps = kind in strategy.WRAP and has_gradients(cell)
    model: nn.Module = strategy.WRAP[kind](decoder, context) if wraps else decoder
    return Built(
        decoder=decoder,
        model=compiler.model(model, cell.config.compile),
        root=decoder,
        forward_context=number_format.forward(cell, device),
        num_parameters=num_parameters,
        num_trainable_parameters=num_trainable,
        choices=(choices or {}) | compiler.choices(cell.config.compile),
        gradient_sync=functools.partial(strategy.gradient_sync, model),
        clip_gradients=functools.partial(_clip_gradients, decoder),
    )


def _distributed_by_compiler(decoder: Decoder, context: Context, num_parameters: int, num_trainable: int) -> Built:
    """What the compiler's own strategies make of the initialised decoder: it stands for the decoder from then on."""
    cell = context.cell
    compiler = compile.COMPILERS[cell.axes["compile"]]
    assert compiler.distribute is not None and compiler.gradient_sync is not None
    model = compiler.distribute(decoder, context)
    return Built(
        decoder=cast(Decoder, model),
        model=model,
        root=model,
        forward_context=formats.PRECISIONS[cell.axes["precision"]].forward(cell, context.device),
        num_parameters=num_parameters,
        num_trainable_parameters=num_trainable,
        choices=compiler.choices(cell.config.compile),
        gradient_sync=functools.partial(compiler.gradient_sync, model),
        clip_gradients=functools.partial(_clip_gradients, cast(Decoder, model)),
    )


def _clip_gradients(decoder: Decoder, optimizer: torch.optim.Optimizer, max_norm: float) -> None:
    nn.utils.clip_grad_norm_(decoder.parameters(), max_norm, foreach=True)
