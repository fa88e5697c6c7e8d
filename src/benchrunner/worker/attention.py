"""Which fused attention kernel runs: torch's `scaled_dot_product_attention` picks from the ones allowed here."""

import contextlib
from collections.abc import Iterator

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchrunner.cell import Cell
from benchrunner.worker.precision import activation_dtype

BACKENDS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}
"""Option → torch's back end. `auto` leaves torch its own order, `explicit` uses no fused kernel at all."""


@contextlib.contextmanager
def attention_backend(cell: Cell) -> Iterator[None]:
    """Everything inside, compiled or not, uses the cell's attention back end."""
    name = cell.get("attention")
    with sdpa_kernel(BACKENDS[name]) if name in BACKENDS else contextlib.nullcontext():
        yield


def chosen_backend(cell: Cell, device: torch.device) -> str:
    """The back end that torch takes for this cell's causal training shape (call it inside `attention_backend`)."""
    if cell.get("attention") == "explicit":
        return "explicit"
    model = cell.config["model"]
    head_size = model["d_model"] // model["num_heads"]
    query, key = (
        torch.empty(
            (cell.sizes.micro_batch_size, heads, cell.sizes.seq_len, head_size),
            device=device,
            dtype=activation_dtype(cell),
            requires_grad=True,
        )
        for heads in (model["num_heads"], model["num_kv_heads"])
    )
    choice = torch._fused_sdp_choice(query, key, key, None, 0.0, True, enable_gqa=query.shape != key.shape)
    return next((name for name, backend in BACKENDS.items() if backend.value == choice), "math")
