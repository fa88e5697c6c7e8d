"""The parts of a transformer block: norm, rotary positions, attention and MLP of every model family.

Every matrix is a plain `nn.Linear` attribute (`qkv`, `out`, `gate_up` or `up`, `down`), so that precisions and
finetuning methods can swap it; an adapter overrides `Attention.attend`.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchrunner.core.schema import ModelConfig
from benchrunner.worker.model.kv_cache import LayerCache


def make_norm(model: ModelConfig) -> nn.Module:
    """RMSNorm, or LayerNorm with a bias, over `d_model` channels."""
    norm = nn.RMSNorm if model.norm == "rmsnorm" else nn.LayerNorm
    return norm(model.d_model, eps=model.norm_eps)


def rotary_size(model: ModelConfig) -> int:
    """How many channels of each head are rotated."""
    return int(model.d_model // model.num_heads * model.rotary_fraction)


def rotary_tables(model: ModelConfig, num_positions: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and signed sines for `rotate`, each fp32 [positions, 1, head size] (RoFormer, arXiv:2104.09864).

    Channels that are not rotated have cosine 1 and sine 0; the first half of the sines carries the minus sign of
    the rotation, which saves a negation of every query and key.
    """
    size, head_size = rotary_size(model), model.d_model // model.num_heads
    exponents = torch.arange(0, size, 2, device=device, dtype=torch.float32) / size
    angles = torch.arange(num_positions, device=device, dtype=torch.float32)[:, None] * model.rope_base**-exponents
    still = torch.zeros(num_positions, head_size - size, device=device)
    cos = torch.cat((angles.cos(), angles.cos(), still + 1), -1)
    sin = torch.cat((-angles.sin(), angles.sin(), still), -1)
    return cos[:, None], sin[:, None]


def rotate(x: Tensor, cos: Tensor, sin: Tensor, size: int) -> Tensor:
    """Rotate the first `size` channels of x [batch, length, heads, head size] by the angles of their positions."""
    half, rest = size // 2, x.shape[-1] - size
    if rest:
        first, second, still = torch.split(x, [half, half, rest], -1)
        swapped = torch.cat((second, first, still), -1)
    else:
        first, second = torch.split(x, half, -1)
        swapped = torch.cat((second, first), -1)
    return torch.addcmul(x * cos, swapped, sin)


class Attention(nn.Module):
    """Causal self-attention with as many key-value heads as the shape says."""

    def __init__(self, model: ModelConfig, *, explicit: bool) -> None:
        super().__init__()
        width, self.num_heads, self.num_kv_heads = model.d_model, model.num_heads, model.num_kv_heads
        self.head_size = width // self.num_heads
        self.rotary_size = rotary_size(model)
        self.dropout = float(model.dropout)
        self.explicit = explicit
        self.repeats_keys = False
        """Keys and values are repeated for the query heads of their group: for compilers that know no groups."""
        self.qkv = nn.Linear(width, (self.num_heads + 2 * self.num_kv_heads) * self.head_size, bias=model.bias)
        self.out = nn.Linear(width, width, bias=model.bias)

    def forward(
        self,
        x: Tensor,
        cos: Tensor | None,
        sin: Tensor | None,
        mask: Tensor | None = None,
        cache: LayerCache | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        """x [batch, length, width] → the same; see `Decoder.forward` for the other arguments."""
        q, k, v = self.heads(x, cos, sin)
        if cache is not None:
            k, v = cache.store(k, v, positions)
        y = self.attend(q, k, v, mask)
        return self.out(y.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    def heads(self, x: Tensor, cos: Tensor | None, sin: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, rotated, each [batch, heads, length, head size]."""
        counts = [self.num_heads, self.num_kv_heads, self.num_kv_heads]
        q, k, v = torch.split(self.qkv(x).view(*x.shape[:2], -1, self.head_size), counts, 2)
        if cos is not None and sin is not None:
            q, k = rotate(q, cos, sin, self.rotary_size), rotate(k, cos, sin, self.rotary_size)
        return q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """Attention of q [batch, heads, new, head size] to k and v.

        Without a mask it is causal among the tokens themselves; a single new token attends to all of k.
        """
        dropout = self.dropout if self.training else 0.0
        if mask is None:
            grouped = self.num_heads != self.num_kv_heads
            if grouped and self.repeats_keys:
                k, v, grouped = self._repeated(k), self._repeated(v), False
            by_groups: dict[str, Any] = {"enable_gqa": True} if grouped else {}
            if q.shape[2] == k.shape[2]:
                return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True, **by_groups)
            return F.scaled_dot_product_attention(q, k, v, **by_groups)
        # The heads of a group share keys, so they fold into the length: no kernel takes a mask and groups at once.
        groups = self.num_heads // self.num_kv_heads
        folded = q.reshape(q.shape[0], self.num_kv_heads, groups * q.shape[2], self.head_size)
        mask = mask.expand(groups, *mask.shape).flatten(0, 1)
        attention = explicit_attention if self.explicit else F.scaled_dot_product_attention
        return attention(folded, k, v, mask, dropout).reshape(q.shape)

    def _repeated(self, x: Tensor) -> Tensor:
        """x [batch, kv heads, length, head size] with each head as often as it has query heads."""
        return x.repeat_interleave(self.num_heads // self.num_kv_heads, 1)


def explicit_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, dropout: float) -> Tensor:
    """Softmax attention written out, with the score matrix in memory: what fused kernels are compared with."""
    scores = (q @ k.transpose(-2, -1)) * q.shape[-1] ** -0.5
    weights = scores.masked_fill(~mask, float("-inf")).softmax(-1)
    return F.dropout(weights, dropout) @ v


class GatedMLP(nn.Module):
    """SwiGLU (arXiv:2002.05202) with gate and up projection fused."""

    def __init__(self, model: ModelConfig) -> None:
        super().__init__()
        self.gate_up = nn.Linear(model.d_model, 2 * model.d_ff, bias=model.bias)
        self.down = nn.Linear(model.d_ff, model.d_model, bias=model.bias)

    def forward(self, x: Tensor) -> Tensor:
        """x [batch, length, width] → the same."""
        gate, up = self.gate_up(x).chunk(2, -1)
        return self.down(F.silu(gate) * up)  # type: ignore[no-any-return]


class MLP(nn.Module):
    """Two matrices with a GELU between them, exact or in its tanh approximation."""

    def __init__(self, model: ModelConfig) -> None:
        super().__init__()
        self.approximate = "tanh" if model.mlp == "gelu_tanh" else "none"
        self.up = nn.Linear(model.d_model, model.d_ff, bias=model.bias)
        self.down = nn.Linear(model.d_ff, model.d_model, bias=model.bias)

    def forward(self, x: Tensor) -> Tensor:
        """x [batch, length, width] → the same."""
        return self.down(F.gelu(self.up(x), approximate=self.approximate))  # type: ignore[no-any-return]


def make_mlp(model: ModelConfig) -> nn.Module:
    """The MLP that `model.mlp` names."""
    return GatedMLP(model) if model.mlp == "swiglu" else MLP(model)
