"""Which fused attention kernel runs: torch's `scaled_dot_product_attention` picks from the ones allowed here."""

import contextlib
from collections.abc import Iterator

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchrunner.core.arithmetic import GRADIENT_WORKLOADS
from benchrunner.core.cell import Cell
from benchrunner.worker.axes.precision.formats import activation_dtype

BACKENDS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}
"""Option → torch's back end. `auto` leaves torch its own order, `explicit` uses no fused kernel at all."""
PREPARED_PER_SHAPE = frozenset({"cudnn"})
"""Makes a plan for every new shape, which takes tens of milliseconds: not what `auto` is where lengths vary."""


@contextlib.contextmanager
def attention_backend(cell: Cell) -> Iterator[None]:
    """Everything inside, compiled or not, uses the cell's attention back end."""
    allowed = _allowed_backends(cell)
    with sdpa_kernel(allowed) if allowed else contextlib.nullcontext():
        yield


def _allowed_backends(cell: Cell) -> list[SDPBackend]:
    """What torch may choose from; empty: from all, or there is nothing to choose."""
    name = cell.config.attention
    if name in BACKENDS:
        return [BACKENDS[name]]
    if name == "auto" and cell.config.workload.lengths != "fixed":
        return [backend for option, backend in BACKENDS.items() if option not in PREPARED_PER_SHAPE]
    return []


def chosen_backend(cell: Cell, device: torch.device) -> str:
    """The back end that torch takes for this cell's causal shape (call it inside `attention_backend`)."""
    if cell.config.attention == "explicit":
        return "explicit"
    length = cell.sizes.seq_len
    query, key = _empty_heads(cell, device, num_queries=length, num_keys=length)
    dropout = cell.config.model.dropout if query.requires_grad else 0.0
    return _backend_name(query, key, None, causal=True, dropout=dropout)


def decode_backend(cell: Cell, device: torch.device) -> str:
    """The same for the last token of a generation; a compiler gets its attention written out (worker/decoding.py)."""
    is_eager, options = cell.axes["compile"] == "eager", cell.config.generate
    if cell.config.attention == "explicit" or (cell.config.attention == "auto" and not is_eager):
        return "explicit"
    length = options.prompt_length + options.new_tokens
    query, key = _empty_heads(cell, device, num_queries=1, num_keys=length)
    mask = None if is_eager else torch.ones(1, length, dtype=torch.bool, device=device)
    return _backend_name(query, key, mask, causal=False)


def _empty_heads(
    cell: Cell, device: torch.device, *, num_queries: int, num_keys: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """A query and a key of the cell's shape."""
    model, batch_size = cell.config.model, cell.sizes.micro_batch_size
    head_size, dtype = model.d_model // model.num_heads, activation_dtype(cell)
    query = torch.empty((batch_size, model.num_heads, num_queries, head_size), device=device, dtype=dtype)
    key = torch.empty((batch_size, model.num_kv_heads, num_keys, head_size), device=device, dtype=dtype)
    has_gradients = cell.axes["workload"] in GRADIENT_WORKLOADS
    return query.requires_grad_(has_gradients), key.requires_grad_(has_gradients)


def _backend_name(
    query: torch.Tensor, key: torch.Tensor, mask: torch.Tensor | None, *, causal: bool, dropout: float = 0.0
) -> str:
    grouped = query.shape[1] != key.shape[1]
    choice = torch._fused_sdp_choice(query, key, key, mask, dropout, causal, enable_gqa=grouped)
    return next((name for name, backend in BACKENDS.items() if backend.value == choice), "math")
