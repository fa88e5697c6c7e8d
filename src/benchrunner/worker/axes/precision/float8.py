"""What both fp8 libraries share: which linears they take, which sizes, and what is padded when asked to."""

from collections.abc import Callable, Iterator

import torch.nn.functional as F
from torch import Tensor, nn

from benchrunner.core.arithmetic import GRADIENT_WORKLOADS
from benchrunner.core.cell import Cell
from benchrunner.core.errors import Unsupported
from benchrunner.core.rank_result import Float8Choices
from benchrunner.worker.model.decoder import Decoder

MULTIPLE = 16
"""What the sizes of an fp8 matrix product must be multiples of (cuBLASLt, torch._scaled_mm on CUDA)."""

ROWS_MULTIPLE = 8
"""What Transformer Engine wants of the number of rows when there is no weight gradient, which multiplies over rows."""


def float8_linears(decoder: Decoder, cell: Cell) -> dict[str, nn.Linear]:
    """Name → linear, of those that the precision turns into fp8: all, or those of the blocks; never a tied head."""
    return {name: module for name, module in _linears(decoder) if name not in kept_linears(decoder, cell)}


def kept_linears(decoder: Decoder, cell: Cell) -> dict[str, str]:
    """Name → why it stays in the compute dtype of everything else."""
    if decoder.model.tie_embeddings:
        return {"head": "its matrix is the embedding's"}
    return {} if cell.config.precision.scope == "all" else {"head": "precision.scope=blocks"}


def _linears(decoder: Decoder) -> Iterator[tuple[str, nn.Linear]]:
    return ((name, module) for name, module in decoder.named_modules() if isinstance(module, nn.Linear))


def excess(size: int, multiple: int = MULTIPLE) -> int:
    """How much must be added to `size` to reach the next multiple."""
    return -size % multiple


def needs_padding(linear: nn.Linear) -> bool:
    """Whether fp8 cannot take this matrix as it is."""
    return bool(excess(linear.in_features) or excess(linear.out_features))


def num_rows(cell: Cell) -> int:
    """Rows that a linear multiplies in a pass over a whole micro-batch; a decode has one a sequence."""
    return cell.sizes.micro_batch_size * (1 if cell.axes["workload"] == "generate" else cell.sizes.seq_len)


def rows_multiple(cell: Cell) -> int:
    """What the number of rows must be a multiple of: the weight gradient multiplies over them."""
    if cell.axes["workload"] in GRADIENT_WORKLOADS:
        return MULTIPLE
    return ROWS_MULTIPLE if cell.config.precision.backend == "transformer_engine" else 1


def check_sizes(linears: dict[str, nn.Linear], cell: Cell) -> None:
    """Refuse what fp8 cannot take, unless it shall be padded.

    Raises:
        Unsupported: naming the first size that does not fit; or there is no linear to convert.
    """
    if not linears:
        raise Unsupported("runtime.fp8_nothing", f"precision={cell.axes['precision']} finds no linear to convert")
    if cell.config.precision.pad:
        return
    for name, linear in linears.items():
        if needs_padding(linear):
            raise Unsupported(
                "runtime.fp8_sizes",
                f"fp8 takes matrices whose sizes are multiples of {MULTIPLE}, and {name} is "
                f"{linear.in_features} × {linear.out_features}; precision.pad=true pads",
            )
    if excess(num_rows(cell), rows_multiple(cell)):
        raise Unsupported(
            "runtime.fp8_rows",
            f"fp8 takes multiples of {rows_multiple(cell)} rows, and a micro-batch has {num_rows(cell)}; "
            "precision.pad=true pads",
        )


def describe(decoder: Decoder, linears: dict[str, nn.Linear], cell: Cell, *, padded: bool) -> Float8Choices:
    """What was converted, for the record's choices; `padded` says whether this device needs padding at all."""
    sizes = {
        name: f"{one.in_features}×{one.out_features} → {_up(one.in_features)}×{_up(one.out_features)}"
        for name, one in linears.items()
        if padded and needs_padding(one)
    }
    extra_rows = excess(num_rows(cell), rows_multiple(cell)) if padded else 0
    return {
        "recipe": cell.config.precision.recipe,
        "num_linears": len(linears),
        "kept": kept_linears(decoder, cell),
        "padded": sizes | ({"rows": f"{num_rows(cell)} → {num_rows(cell) + extra_rows}"} if extra_rows else {}),
    }


def _up(size: int) -> int:
    return size + excess(size)


def pad_matrix(weight: Tensor) -> Tensor:
    """weight [out, in] with zero rows and columns up to the next multiples."""
    return F.pad(weight, (0, excess(weight.shape[1]), 0, excess(weight.shape[0])))


def call_padded(x: Tensor, out_features: int, multiply: Callable[[Tensor], Tensor]) -> Tensor:
    """`multiply` [rows, in] → [rows, out] on x [..., in] padded with zeros; the padding is cut off the result."""
    rows = x.flatten(0, -2)
    padded = F.pad(rows, (0, excess(rows.shape[1]), 0, excess(rows.shape[0])))
    return multiply(padded)[: rows.shape[0], :out_features].reshape(*x.shape[:-1], out_features)


def replace_module(root: nn.Module, name: str, module: nn.Module) -> None:
    """Put `module` where the submodule `name` is."""
    parent, _, leaf = name.rpartition(".")
    setattr(root.get_submodule(parent), leaf, module)
