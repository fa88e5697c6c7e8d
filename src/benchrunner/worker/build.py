"""The ordered recipe from a cell to a model that can step, with the reason for the order."""

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import nn

from benchrunner import arithmetic
from benchrunner.cell import Cell
from benchrunner.worker import activation_checkpointing, compile, lies, nf4, peft, precision, strategy
from benchrunner.worker.context import Context
from benchrunner.worker.loss_scale import CountingScaler
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
    root: nn.Module
    """The decoder, or what must be called in its place for its parameters to be gathered; never compiled as a whole."""
    forward_context: Callable[[], AbstractContextManager[object]]
    num_parameters: int
    """Whole model, tied head once, before any packing or sharding."""
    num_trainable_parameters: int
    choices: dict[str, Any] = field(default_factory=dict)
    """What precision, compiler and engine decided by themselves, for the record."""
    backward: Callable[[torch.Tensor], None] = torch.Tensor.backward
    """The backward pass of a loss."""
    gradient_sync: Callable[[bool], AbstractContextManager[object]]
    """Around a micro-step: whether its backward pass reduces gradients over the ranks."""
    setup_optimizer: Callable[[torch.optim.Optimizer], torch.optim.Optimizer] = lambda optimizer: optimizer
    """What the engine puts around the optimizer."""
    clip_gradients: Callable[[torch.optim.Optimizer, float], None]
    """Clip all gradients of the optimizer's parameters to a global norm."""
    scaler: CountingScaler | None = None
    """The engine's own, where it scales the loss, so that the loop must not."""


def build(context: Context) -> Built:
    """Build the cell's model by its engine."""
    return ENGINES[context.cell.axes["engine"]](context)


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
    number_format = precision.PRECISIONS[cell.axes["precision"]]
    compiler = compile.COMPILERS[cell.axes["compile"]]
    compile.configure(cell)
    torch.set_float32_matmul_precision("highest")
    decoder = decoder_on_meta(cell, without_last_layer=context.fault_is("wrong_shape"))
    num_parameters, num_trainable = count_parameters(decoder)
    choices = None if context.fault_is("no_convert") else number_format.convert(decoder, cell, device)
    if peft.apply(decoder, cell.config["workload"], precision.storage_dtype(cell)):
        num_trainable = count_parameters(decoder)[1]
    if number_format.packs:
        materialise(decoder, cell, device)
    if not context.fault_is("no_recompute"):
        activation_checkpointing.APPLY[cell.axes["activation_checkpointing"]](
            decoder, cell.config["activation_checkpointing"], number_format.checkpoint(cell)
        )
    compiler.blocks(decoder, cell.config["compile"])
    if not has_gradients(cell) and cell.get("compile.scope") == "block":
        decoder.logits = compiler.function(decoder.logits, cell.config["compile"])  # type: ignore[method-assign]
    kind = cell.get("strategy.kind")
    compiler_distributes = compiler.distributes(cell) and (has_gradients(cell) or kind == "fsdp")
    if kind in strategy.SHARD and not compiler_distributes:
        strategy.SHARD[kind](decoder, context)
        nf4.check_bits(decoder, context)
    if not number_format.packs:
        materialise(decoder, cell, device)
    if context.fault_is("zero_norm"):
        lies.zero_norms(decoder)
    if context.fault_is("stale_recompute"):
        lies.recompute_otherwise(decoder)
    if context.fault_is("wrong_linear"):
        lies.falsify_linears(decoder)
    if compiler_distributes:
        return _distributed_by_compiler(decoder, context, num_parameters, num_trainable)
    wraps = kind in strategy.WRAP and has_gradients(cell)
    model: nn.Module = strategy.WRAP[kind](decoder, context) if wraps else decoder
    if context.fault_is("no_reduce"):
        lies.stop_reducing(model)
    return Built(
        decoder=decoder,
        model=compiler.model(model, cell.config["compile"]),
        root=decoder,
        forward_context=nullcontext if context.fault_is("no_convert") else number_format.forward(cell, device),
        num_parameters=num_parameters,
        num_trainable_parameters=num_trainable,
        choices=(choices or {}) | compiler.choices(cell.config["compile"]),
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
        forward_context=precision.PRECISIONS[cell.axes["precision"]].forward(cell, context.device),
        num_parameters=num_parameters,
        num_trainable_parameters=num_trainable,
        choices=compiler.choices(cell.config["compile"]),
        gradient_sync=functools.partial(compiler.gradient_sync, model),
        clip_gradients=functools.partial(_clip_gradients, cast(Decoder, model)),
    )


def build_by_fabric(context: Context) -> Built:
    """Build the cell's model by Lightning Fabric, which takes seconds to import."""
    from benchrunner.worker import fabric

    return fabric.build(context)


ENGINES: dict[str, Callable[[Context], Built]] = {
    "native": build_native,
    "fabric": build_by_fabric,
    "fabric-model-parallel": build_by_fabric,
}
"""Engine → whose code spreads the model, mixes precisions and steps."""


def _clip_gradients(decoder: Decoder, optimizer: torch.optim.Optimizer, max_norm: float) -> None:
    nn.utils.clip_grad_norm_(decoder.parameters(), max_norm, foreach=True)


def has_gradients(cell: Cell) -> bool:
    """Whether the workload has a backward pass."""
    return cell.axes["workload"] in arithmetic.GRADIENT_WORKLOADS


def decoder_on_meta(cell: Cell, *, without_last_layer: bool = False) -> Decoder:
    """The cell's decoder without storage, in the dtype that its parameters are kept in."""
    model = dict(cell.config["model"])
    model["num_layers"] -= without_last_layer
    with torch.device("meta"):
        decoder = Decoder(
            model,
            loss_chunk_tokens=cell.get("workload.loss_chunk_tokens"),
            explicit_attention=cell.get("attention") == "explicit",
            num_positions=max(cell.sizes.seq_len, generated_length(cell)),
        )
    return decoder.to(precision.storage_dtype(cell))


def generated_length(cell: Cell) -> int:
    """Tokens that prompt and continuation of a generated sample have together; 0 for other workloads."""
    options = cell.config["generate"]
    return int(options["prompt_length"] + options["new_tokens"]) if cell.axes["workload"] == "generate" else 0


def count_parameters(module: nn.Module) -> tuple[int, int]:
    """All parameters and the trainable ones; a shared parameter counts once."""
    parameters = list(module.parameters())
    return sum(p.numel() for p in parameters), sum(p.numel() for p in parameters if p.requires_grad)


def materialise(decoder: Decoder, cell: Cell, device: torch.device) -> None:
    """Give every parameter and buffer on meta its storage and its value."""
    decoder._apply(  # type: ignore[no-untyped-call]
        lambda tensor: torch.empty_like(tensor, device=device) if tensor.is_meta else tensor
    )
    decoder.tie_weights()
    decoder.reset_buffers(device, precision.activation_dtype(cell))
    fill_parameters(decoder, seed=cell.get("seed"), std=cell.get("model.init_std"), device=device)


def build_optimizer(built: Built, cell: Cell) -> torch.optim.Optimizer:
    """The optimizer comes last: it must hold the parameters as they are at the end (sharded, on the device)."""
    return built.setup_optimizer(make_optimizer(built.decoder, cell.config["optimizer"]))
