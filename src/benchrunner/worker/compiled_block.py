"""What a block compiled by Inductor keeps for its backward pass: captured alone under fake tensors.

AOTAutograd traces it with Inductor's decompositions and the partitioner that Inductor uses decides what is kept and
what is made again. Nothing is compiled. (Under a tape `torch.compile` silently does not compile.)
"""

from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._functorch.aot_autograd import aot_function
from torch._functorch.partitioners import min_cut_rematerialization_partition
from torch._inductor.decomposition import select_decomp_table
from torch._subclasses.fake_tensor import FakeTensorMode

from benchrunner.core.cell import Cell
from benchrunner.worker import fake_kernels
from benchrunner.worker.axes.precision import formats
from benchrunner.worker.model.decoder import Block


def kept_bytes(cell: Cell) -> int:
    """Bytes that one block of a training cell keeps, its input included, parameters not; one storage counts once."""
    with torch.device("meta"):
        block = Block(cell.config.model, explicit_attention=False).to(formats.storage_dtype(cell))
    graphs: list[Any] = []
    with (
        FakeTensorMode(allow_non_fake_inputs=True),
        patch.object(F, "scaled_dot_product_attention", fake_kernels.attention),
    ):
        parameters = {name: nn.Parameter(torch.empty_like(one, device="cpu")) for name, one in block.named_parameters()}
        captured = _captured(block, list(parameters), graphs)
        captured(*_inputs(cell), *parameters.values())
        x = _inputs(cell)[0]
    return _kept_bytes(graphs[0]) + x.untyped_storage().nbytes()


def _captured(block: Block, names: list[str], graphs: list[Any]) -> Any:
    """The block as a function of its inputs and parameters, whose forward graph is put into `graphs`."""

    def call(x: Tensor, cos: Tensor | None, sin: Tensor | None, *parameters: Tensor) -> Any:
        return torch.func.functional_call(block, dict(zip(names, parameters, strict=True)), (x, cos, sin))

    def keep(gm: Any, example_inputs: Any) -> Any:
        graphs.append(gm)
        return gm

    return aot_function(
        call,
        fw_compiler=keep,
        bw_compiler=lambda gm, example_inputs: gm,
        partition_fn=min_cut_rematerialization_partition,
        decompositions=select_decomp_table(),
    )


def _inputs(cell: Cell) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The residual stream and the rotary tables."""
    model, sizes, dtype = cell.config.model, cell.sizes, formats.activation_dtype(cell)
    x = torch.empty(sizes.micro_batch_size, sizes.seq_len, model.d_model, dtype=dtype, requires_grad=True)
    if model.positions != "rotary":
        return x, None, None
    table = torch.empty(sizes.seq_len, 1, model.d_model // model.num_heads, dtype=dtype)
    return x, table, table.clone()


def _kept_bytes(graph: Any) -> int:
    """Storages of the forward graph's outputs, but for the block's own output and for parameters and their views."""
    outputs = next(node for node in graph.graph.nodes if node.op == "output").args[0]
    kept = {_storage(node): node for node in outputs[1:] if _is_made(node)}
    kept.pop(_storage(outputs[0]), None)
    return sum(node.meta["val"].untyped_storage().nbytes() for node in kept.values())


def _is_made(node: Any) -> bool:
    """Whether a tensor is the graph's own: neither an input nor a view of one."""
    if getattr(node, "op", None) != "call_function" or not isinstance(node.meta.get("val"), Tensor):
        return False
    return not _is_view(node) or _is_made(node.args[0])


def _is_view(node: Any) -> bool:
    return bool(getattr(node.target, "is_view", False))


def _storage(node: Any) -> int:
    return int(node.meta["val"].untyped_storage()._cdata)
