"""Frozen linears in 4-bit NormalFloat by bitsandbytes (QLoRA, arXiv:2305.14314), scales doubly quantised or not.

Packed weights cannot be initialised after sharding, so each linear is made on the device from its tensor of that name,
quantised and its full form freed before the next: the peak is the quantised size and one matrix.
"""

import functools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from benchrunner.core.cell import Cell
from benchrunner.core.errors import Unsupported
from benchrunner.core.rank_result import Choices
from benchrunner.worker.axes.activation_checkpointing import KEPT_OPERATIONS
from benchrunner.worker.axes.peft import is_linear
from benchrunner.worker.context import Context
from benchrunner.worker.model.decoder import Decoder
from benchrunner.worker.model.weights import canonical_name, full_tensor

STORAGE_DTYPE = torch.float32
"""The dtype that packed bits are called. On CUDA `fully_shard` copies a unit's shards by `torch._foreach_copy_`, which
takes bfloat16 through float32 and back: bits that spell a NaN become another NaN, and four weights change with them
(seen on an H200; bitsandbytes#1945 reports the wrong results). float32 is copied as it is, and beside parameters of
another dtype a unit is gathered as bytes. Bytes themselves would do, but torch before 2.13 cannot shard them."""


def quantise(decoder: Decoder, cell: Cell, device: torch.device) -> Choices:
    """Replace the linears of a decoder on meta by quantised ones on `device`; the rest stays on meta.

    Returns what to record. A tied head gets a matrix of its own from the embedding's values: packed rows cannot be
    looked up.

    Raises:
        Unsupported: no linear was converted.
    """
    _keep_products_when_checkpointing()
    linears = dict(_linears(decoder, head=cell.config.precision.scope == "all"))
    if not linears:
        raise Unsupported("runtime.nf4_nothing", "there is no linear to quantise")
    for name, linear in linears.items():
        parent, _, leaf = name.rpartition(".")
        setattr(decoder.get_submodule(parent), leaf, _quantised(name, linear, cell, device))
    if "head" in linears:
        decoder.model = replace(decoder.model, tie_embeddings=False)
    return {"num_linears": len(linears), "kept": {} if "head" in linears else {"head": "precision.scope=blocks"}}


def _keep_products_when_checkpointing() -> None:
    """Per-operation checkpointing keeps the library's own product, like any other."""
    import bitsandbytes  # noqa: F401 - registers its operators

    product = getattr(torch.ops.bitsandbytes, "gemm_4bit", None)
    if product is not None and product.default not in KEPT_OPERATIONS:
        KEPT_OPERATIONS.append(product.default)


def _linears(decoder: Decoder, *, head: bool) -> Iterator[tuple[str, nn.Linear]]:
    for name, module in decoder.named_modules():
        if isinstance(module, nn.Linear) and is_linear(name) and (head or name != "head"):
            yield name, module


def _quantised(name: str, linear: nn.Linear, cell: Cell, device: torch.device) -> nn.Module:
    """The bitsandbytes linear of this shape with its packed weight on `device`; a bias stays on meta."""
    shape = linear.in_features, linear.out_features
    made = _linear_class()(*shape, bias=False, compute_dtype=torch.bfloat16, device="meta", **_options(cell))
    made.weight = _pack(_full_weight(name, linear.weight.shape, cell, device), cell)
    made.weight.module, made.quant_state = made, made.weight.quant_state
    made.bias = linear.bias
    converted: nn.Module = made
    return converted


@functools.cache
def _linear_class() -> Any:
    import bitsandbytes

    class PackedLinear(bitsandbytes.nn.Linear4bit):  # type: ignore[misc]
        """bitsandbytes' linear with the same product, reading the scales where sharding leaves them.

        The library's own forward makes a new parameter whenever `fully_shard` has put a plain one in place, which a
        compiled graph cannot.
        """

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            """x [..., in] → [..., out] in bf16."""
            product: torch.Tensor = bitsandbytes.matmul_4bit(
                x.to(self.compute_dtype), self.weight.t(), bias=self.bias, quant_state=self.quant_state
            )
            return product

    return PackedLinear


def _options(cell: Cell) -> dict[str, Any]:
    return {
        "compress_statistics": cell.config.precision.param_dtype == "nf4-dq",
        "quant_type": "nf4",
        "quant_storage": STORAGE_DTYPE,
    }


def _pack(full: torch.Tensor, cell: Cell) -> Any:
    """The packed parameter of a matrix, on its device, with `quant_state`."""
    from bitsandbytes.nn import Params4bit

    return Params4bit(full, requires_grad=False, **_options(cell)).to(full.device)


def _full_weight(name: str, shape: torch.Size, cell: Cell, device: torch.device) -> torch.Tensor:
    """The bf16 matrix [out, in] that the linear `name` starts from, as in every precision."""
    tied = name == "head" and cell.config.model.tie_embeddings
    source = "embedding.weight" if tied else f"{name}.weight"
    full = full_tensor(source, shape, seed=cell.config.seed, std=cell.config.model.init_std, device=device)
    return full.to(torch.bfloat16)


def dequantised(
    name: str, shape: torch.Size, cell: Cell, device: torch.device, dtype: torch.dtype = torch.bfloat16
) -> torch.Tensor:
    """The matrix [out, in] that the packed weight of the linear `name` stands for, made anew from one in `dtype`."""
    from bitsandbytes.functional import dequantize_4bit

    fresh = _pack(_full_weight(name, shape, cell, device).to(dtype), cell)
    full: torch.Tensor = dequantize_4bit(fresh.data, fresh.quant_state)
    return full


def packed_linears(module: nn.Module) -> dict[str, Any]:
    """Canonical name → quantised linear, of all in `module`, wrapped or not."""
    named = ((canonical_name(f"{name}.")[:-1], linear) for name, linear in module.named_modules())
    return {name: linear for name, linear in named if getattr(linear, "quant_state", None) is not None}


def resident_bytes(module: nn.Module) -> int:
    """Bytes that the parameters of `module` hold on this rank, the scales of packed weights included."""
    parameters = sum(_storage_bytes(parameter) for parameter in module.parameters())
    return parameters + sum(_scale_bytes(linear.quant_state) for linear in packed_linears(module).values())


def _storage_bytes(parameter: torch.Tensor) -> int:
    local = parameter.to_local() if isinstance(parameter, DTensor) else parameter
    return local.numel() * local.element_size()


def _scale_bytes(state: Any) -> int:
    """Scales, and where they are quantised themselves their scales, offset and code book."""
    tensors = [state.absmax, state.code]
    if state.nested:
        tensors += [state.offset, state.state2.absmax, state.state2.code]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


@torch.no_grad()
def check_bits(decoder: Decoder, context: Context) -> None:
    """Gather every sharded unit once and compare its dequantised matrices bit by bit with ones made anew.

    Raises:
        Unsupported: a matrix differs (bitsandbytes#1945 reports wrong results of packed weights under FSDP).
    """
    pending = packed_linears(decoder)
    if not pending:
        return
    from bitsandbytes.functional import dequantize_4bit

    for unit in (module for module in decoder.modules() if isinstance(module, FSDPModule)):
        unit.unshard()
        for name in [name for name, linear in pending.items() if not isinstance(linear.weight, DTensor)]:
            linear = pending.pop(name)
            shape, packed_from = torch.Size((linear.out_features, linear.in_features)), linear.quant_state.dtype
            gathered = dequantize_4bit(linear.weight.data, linear.quant_state)
            expected = dequantised(name, shape, context.cell, context.device, packed_from)
            _require_equal(name, gathered, expected, context.rank)
        unit.reshard()
    assert not pending, "every packed linear belongs to a sharded unit"


def _require_equal(name: str, gathered: torch.Tensor, expected: torch.Tensor, rank: int) -> None:
    if not torch.equal(gathered, expected):
        wrong = (gathered != expected).sum().item() / expected.numel()
        raise Unsupported(
            "runtime.nf4_fsdp_bits",
            f"fully_shard changed the packed bits of {name}: rank {rank} dequantises {wrong:.2%} of its weights "
            "to other values than on one device",
        )
