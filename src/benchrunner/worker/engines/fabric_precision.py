"""Fabric's precision plug-ins: which one a cell's precision is, and when it converts the decoder."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from benchrunner.core.cell import Cell
from benchrunner.core.errors import Unsupported
from benchrunner.core.rank_result import Choices, Float8Choices
from benchrunner.worker.axes.precision import float8_te, formats
from benchrunner.worker.axes.precision.loss_scale import CountingScaler, CountingShardedScaler
from benchrunner.worker.context import Context
from benchrunner.worker.engines.built import materialise
from benchrunner.worker.model.decoder import Decoder
from benchrunner.worker.model.weights import full_tensor

if TYPE_CHECKING:
    from lightning.fabric import Fabric

NAMES = {
    (torch.float32, torch.float32): "32-true",
    (torch.bfloat16, torch.bfloat16): "bf16-true",
    (torch.float32, torch.bfloat16): "bf16-mixed",
    (torch.float32, torch.float16): "16-mixed",
}
"""Dtypes of storage and of what is computed without conversion → what Fabric calls that.

It has no plug-in for torchao: its users convert a model in bf16 themselves, as we do.
"""


def options(context: Context) -> dict[str, Any]:
    """Fabric's keyword argument for the cell's precision: a name, or a plug-in.

    Raises:
        Unsupported: Fabric has no name for the dtypes.
    """
    cell = context.cell
    name = cell.axes["precision"]
    if name == "fp8":
        return {"plugins": [_transformer_engine(cell)]}
    if name in ("nf4", "nf4-dq"):
        return {"plugins": [_bitsandbytes(name)]}
    if name == "fp16-mixed" and cell.axes["engine"] == "fabric":
        return {"plugins": [_float16(context)]}
    return {"precision": "32-true" if _leaves_mixing_to_policy(cell) else _name_of(cell)}


def _name_of(cell: Cell) -> str:
    stored, computed = formats.storage_dtype(cell), formats.activation_dtype(cell)
    if (stored, computed) not in NAMES:
        said = f"Fabric has no precision that stores {stored} and computes in {computed}"
        raise Unsupported("runtime.fabric_precision", said)
    return NAMES[stored, computed]


def _leaves_mixing_to_policy(cell: Cell) -> bool:
    """Whether FSDP's policy alone mixes: asked for, or under ModelParallelStrategy, which leaves it to its users.

    FSDPStrategy by itself does both, policy and autocast.
    """
    if formats.mixed_by(cell) != "policy" or cell.axes["precision"] == "fp16-mixed":
        return False
    return cell.axes["engine"] != "fabric" or cell.config.strategy.mixed_precision_by is not None


def _float16(context: Context) -> Any:
    """Fabric's own plug-in for 16-mixed, with a scaler that counts the steps it skips in place of torch's."""
    from lightning.fabric.plugins import FSDPPrecision, MixedPrecision

    device = context.device.type
    if context.cell.config.strategy.kind != "fsdp":
        return MixedPrecision("16-mixed", device, scaler=CountingScaler(device, enabled=True))
    plugin = FSDPPrecision("16-mixed")  # as an argument it takes none: lightning 2.6.6 compares before it is set
    plugin.scaler = CountingShardedScaler(device, enabled=True)
    return plugin


def _transformer_engine(cell: Cell) -> Any:
    from lightning.fabric.plugins import TransformerEnginePrecision

    float8_te.load()
    return TransformerEnginePrecision(
        weights_dtype=formats.storage_dtype(cell), recipe=float8_te.make_recipe(cell.config.precision.recipe)
    )


def _bitsandbytes(mode: Any) -> Any:
    import bitsandbytes  # noqa: F401  (where it is missing, the verdict shall name it)
    from lightning.fabric.plugins import BitsandbytesPrecision

    return BitsandbytesPrecision(mode, dtype=torch.bfloat16)


def prepare(decoder: Decoder, context: Context, fabric: "Fabric") -> tuple[Decoder, Choices]:
    """Have the plug-in, or where there is none our precision, convert the decoder; returns it with choices to record.

    Plug-ins convert real parameters; the scope is the cell's, which they have no word for.
    """
    cell = context.cell
    name = cell.axes["precision"]
    if name == "fp8":
        materialise(decoder, cell, context.device)
        return decoder, {"fp8": _convert_float8(decoder, cell, fabric)}
    if name in ("nf4", "nf4-dq"):
        return _quantised(decoder, context, fabric)
    return decoder, formats.PRECISIONS[name].convert(decoder, cell, context.device) or {}


def _convert_float8(decoder: Decoder, cell: Cell, fabric: "Fabric") -> Float8Choices:
    """The plug-in swaps linears and LayerNorms where it is led: the blocks, or everything where no head is tied.

    Once it finds Transformer Engine's modules in a model it converts no more of it.
    """
    whole = cell.config.precision.scope == "all" and not decoder.model.tie_embeddings
    before = _num_linears(decoder)
    fabric.strategy.precision.convert_module(decoder if whole else decoder.blocks)
    kept = {} if whole else {"head": "precision.scope=blocks, or its matrix is the embedding's"}
    return {
        "recipe": cell.config.precision.recipe,
        "num_linears": before - _num_linears(decoder),
        "kept": kept,
        "padded": {},
    }


def _num_linears(decoder: Decoder) -> int:
    return sum(isinstance(module, nn.Linear) for module in decoder.modules())


@torch.no_grad()
def _quantised(decoder: Decoder, context: Context, fabric: "Fabric") -> tuple[Decoder, Choices]:
    """A decoder whose linears the plug-in quantises on the device as they are constructed, one matrix at a time.

    Constructing them fills them at random; then each is quantised again from its own values. A tied head gets a
    matrix of its own: what is packed cannot be looked up in.
    """
    cell = context.cell
    with fabric.init_module():
        made = Decoder(
            replace(decoder.model, tie_embeddings=False),
            loss_chunk_tokens=decoder.loss_chunk_tokens,
            explicit_attention=decoder.explicit_attention,
            num_positions=decoder.num_positions,
        )
    made.reset_buffers(context.device, formats.activation_dtype(cell))
    quantised = {name: module for name, module in made.named_modules() if hasattr(module, "quantize_")}
    for name, module in quantised.items():
        module.quantize_(_full_weight(name, module, context))
        module.quant_state = module.weight.quant_state
    return made, {"num_linears": len(quantised), "kept": {}}


def _full_weight(name: str, linear: Any, context: Context) -> torch.Tensor:
    """The matrix [out, in] that the linear `name` starts from, as in every engine."""
    cell, shape = context.cell, torch.Size((linear.out_features, linear.in_features))
    source = "embedding" if name == "head" and cell.config.model.tie_embeddings else name
    seed, std = cell.config.seed, cell.config.model.init_std
    return full_tensor(f"{source}.weight", shape, seed=seed, std=std, device=context.device).to(torch.bfloat16)
