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
"""Option → torch's back end; `auto` and `explicit` (no fused kernel at all) are handled here."""

_HOPPER_ORDER = ("cudnn", "flash", "efficient", "math")
"""cuDNN's kernels use Hopper's asynchronous matrix units, torch's flash kernels are FlashAttention-2's."""


def allowed_backends(attention: str, device: torch.device) -> list[SDPBackend] | None:
    """The back ends to choose from, best first; None: torch's own order."""
    if attention in BACKENDS:
        return [BACKENDS[attention]]
    if attention == "auto" and device.type == "cuda" and torch.cuda.get_device_capability(device) >= (9, 0):
        return [BACKENDS[name] for name in _HOPPER_ORDER]
    return None


@contextlib.contextmanager
def attention_backend(cell: Cell, device: torch.device) -> Iterator[None]:
    """Everything inside, compiled or not, uses the cell's attention back end."""
    backends = allowed_backends(cell.get("attention"), device)
    with contextlib.nullcontext() if backends is None else sdpa_kernel(backends, set_priority=True):
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
