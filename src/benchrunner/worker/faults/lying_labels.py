"""Lies about the label alone: the patches by which another number format, compiler or policy runs under its name."""

import functools
from dataclasses import replace
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.nn.attention import SDPBackend

from benchrunner.core.cell import Cell
from benchrunner.core.schema import CheckpointingConfig, CompileConfig
from benchrunner.worker.axes import activation_checkpointing, attention, compile, strategy
from benchrunner.worker.axes.optimizer import make_optimizer
from benchrunner.worker.axes.precision import formats, nf4
from benchrunner.worker.context import Context
from benchrunner.worker.engines import built, fabric, fabric_precision, native
from benchrunner.worker.engines.engine import ENGINES
from benchrunner.worker.faults.patch import Patch, in_module
from benchrunner.worker.model import weights
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


def run_head_alone(context: Context) -> list[Patch]:
    """Of a model that is compiled as a whole only head and loss are."""
    name = context.cell.axes["compile"]
    return [Patch(compile.COMPILERS, name, replace(compile.COMPILERS[name], model=_compile_head))]


def _compile_head(model: nn.Module, options: CompileConfig) -> nn.Module:
    decoder: Any = next(part for part in model.modules() if isinstance(part, Decoder))
    decoder.head_loss = torch.compile(decoder.head_loss, dynamic=False)
    return model


def attend_by_another(context: Context) -> list[Patch]:
    """Another kernel of torch's than the one that is named."""
    kernel = SDPBackend.FLASH_ATTENTION if context.cell.config.attention == "math" else SDPBackend.MATH
    return [in_module(attention, "_allowed_backends", lambda cell: [kernel])]


def build_natively(context: Context) -> list[Patch]:
    """No wrapper of Fabric's."""
    return [Patch(ENGINES, name, ENGINES["native"]) for name in ENGINES if name.startswith("fabric")]


def update_one_by_one(context: Context) -> list[Patch]:
    """The optimizer's operations apart where they are to be one kernel."""
    return [
        in_module(built, "make_optimizer", lambda model, options: make_optimizer(model, replace(options, fused=False)))
    ]


def reduce_at_other_times(context: Context) -> list[Patch]:
    """In the last micro-step alone, or in every one."""
    right = strategy.syncs_every_micro_step
    return [in_module(strategy, "syncs_every_micro_step", lambda kind, asked: not right(kind, asked))]


def mix_otherwise(context: Context) -> list[Patch]:
    """By autocast in the place of FSDP's policy."""
    by = formats.mixed_by
    return [in_module(formats, "mixed_by", lambda cell: "autocast" if by(cell) == "policy" else by(cell))]


def keep_unpacked(context: Context) -> list[Patch]:
    """Packed weights are unpacked once; products read the copy."""
    return [in_module(nf4, "_linear_class", lambda: _unpacking(LINEAR_CLASS()))]


def _unpacking(packed: Any) -> Any:
    class Unpacking(packed):  # type: ignore[misc]
        """A linear with a copy, which is no parameter."""

        def forward(self, x: Tensor) -> Tensor:
            """x [..., in] → [..., out]."""
            from bitsandbytes.functional import dequantize_4bit

            if "unpacked" not in self.__dict__:
                self.__dict__["unpacked"] = dequantize_4bit(self.weight.data, self.quant_state)
            return F.linear(x.to(self.unpacked.dtype), self.unpacked, self.bias)

    return Unpacking


LINEAR_CLASS = nf4._linear_class


def keep_some(context: Context) -> list[Patch]:
    """Checkpointed blocks keep their products."""
    keep = functools.partial(checkpoint_wrapper, context_fn=activation_checkpointing.keep_products)
    return [in_module(activation_checkpointing, "checkpoint_wrapper", keep)]


def count_twice(context: Context) -> list[Patch]:
    """The head's matrix counts where it is the embedding's too: a number of the record."""
    return [in_module(module, "count_parameters", _count_twice) for module in (native, fabric)]


def _count_twice(module: nn.Module) -> tuple[int, int]:
    head = cast(Decoder, module).head.weight.numel()
    return tuple(count + head for count in built.count_parameters(module))  # type: ignore[return-value]


def start_smaller(context: Context) -> list[Patch]:
    """Matrices of half the deviation, which cost a device less power."""
    return [in_module(built, "fill_parameters", _fill_smaller)]


def _fill_smaller(module: nn.Module, *, seed: int, std: float, device: torch.device) -> None:
    weights.fill_parameters(module, seed=seed, std=std / 2, device=device)


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
