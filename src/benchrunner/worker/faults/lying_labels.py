"""Lies about the label alone: the patches by which another number format, compiler or policy runs under its name."""

from dataclasses import replace
from typing import Any

import torch

from benchrunner.core.cell import Cell
from benchrunner.core.schema import CheckpointingConfig
from benchrunner.worker.axes import activation_checkpointing, compile, strategy
from benchrunner.worker.axes.precision import formats, nf4
from benchrunner.worker.context import Context
from benchrunner.worker.engines import fabric_precision
from benchrunner.worker.faults.patch import Patch, in_module
from benchrunner.worker.model.decoder import Decoder

OTHER_RECIPES = {
    "tensorwise": "rowwise",
    "rowwise": "tensorwise",
    "delayed": "current",
    "current": "delayed",
    "block": "current",
}
"""`precision.recipe` → the one that is used instead."""


def scale_otherwise(context: Context) -> list[Patch]:
    """The precision gets a cell that asks for another recipe; Fabric's plug-in asks for its own."""
    name, recipe = context.cell.axes["precision"], OTHER_RECIPES[str(context.cell.config.precision.recipe)]
    precision = formats.PRECISIONS[name]

    def other(cell: Cell) -> Cell:
        return replace(cell, config=replace(cell.config, precision=replace(cell.config.precision, recipe=recipe)))

    lying = replace(
        precision,
        convert=lambda decoder, cell, device: precision.convert(decoder, other(cell), device),
        forward=lambda cell, device: precision.forward(other(cell), device),
        checkpoint=lambda cell: precision.checkpoint(other(cell)),
    )
    plug_in = fabric_precision._transformer_engine
    return [
        Patch(formats.PRECISIONS, name, lying),
        in_module(fabric_precision, "_transformer_engine", lambda cell: plug_in(other(cell))),
    ]


def pack_fp4(context: Context) -> list[Patch]:
    """4-bit floats in place of NormalFloat, by torch as by Fabric."""
    options, plug_in = nf4._options, fabric_precision._bitsandbytes
    return [
        in_module(nf4, "_options", lambda cell: {**options(cell), "quant_type": "fp4"}),
        in_module(fabric_precision, "_bitsandbytes", lambda name: plug_in(name.replace("nf4", "fp4"))),
    ]


def store_as_computed(context: Context) -> list[Patch]:
    """The parameters of a mixed precision have the dtype that it computes in."""
    return [
        in_module(formats, "storage_dtype", formats.activation_dtype),
        in_module(fabric_precision, "options", lambda context: {"precision": "bf16-true"}),
    ]


def reduce_otherwise(context: Context) -> list[Patch]:
    """FSDP's collectives carry bfloat16."""
    policy = formats.fsdp_policy_dtypes
    return [
        in_module(strategy, "fsdp_policy_dtypes", lambda cell: replace(policy(cell), reduce=torch.bfloat16)),
    ]


def run_graphs_by_torch(context: Context) -> list[Patch]:
    """Dynamo's graphs are run by torch's own operators."""
    options = compile._torch_compile_options
    lying = {"backend": "aot_eager", "mode": None}
    return [in_module(compile, "_torch_compile_options", lambda given: options(given) | lying)]


def gather_at_once(context: Context) -> list[Patch]:
    """Only the root is a unit."""
    return [in_module(strategy, "units", lambda decoder, granularity: [])]


def checkpoint_every_second(context: Context) -> list[Patch]:
    """Half of the blocks are left out."""
    name = context.cell.axes["activation_checkpointing"]
    apply = activation_checkpointing.APPLY[name]

    def otherwise(decoder: Decoder, options: CheckpointingConfig, checkpoint: Any = None) -> None:
        apply(decoder, replace(options, name="selective", every="1/2"), checkpoint)

    return [Patch(activation_checkpointing.APPLY, name, otherwise)]
