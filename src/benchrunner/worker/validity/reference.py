"""The model families' formulas in plain fp32, block by block: what the measured model has to agree with.

Written from the papers and shares no code with what is measured. Weights come from a source, one unit at a time, so
that the memory of a block and its activations is enough; the backward pass computes each block once more. Matrices
act on rows: [out, in]. `qkv` has the rows of all query heads, then of the keys, then of the values; `gate_up` those
of the gate, then of the other projection.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor

from benchrunner.core.schema import ModelConfig, WorkloadConfig

Weights = Mapping[str, Tensor]
"""Name within the unit → whole tensor, fp32."""

MOST_SCORES = 2**24
"""Of attention at a time: a head's alone may be more. A kernel a head would be thousands of small ones."""

Source = Callable[[int | None], AbstractContextManager[tuple[Weights, frozenset[str]]]]
"""Unit (a block's index, or None for what is outside of blocks) → its weights, and the names of those that train."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Formulas:
    """A model's shape, and what a finetuning method adds to it."""

    model: ModelConfig
    workload: WorkloadConfig

    @property
    def head_size(self) -> int:
        """Channels of a head."""
        return self.model.d_model // self.model.num_heads

    # --- parts

    def norm(self, x: Tensor, weights: Weights, name: str) -> Tensor:
        """RMSNorm (arXiv:1910.07467) or LayerNorm (arXiv:1607.06450)."""
        if self.model.norm == "layernorm":
            x = x - x.mean(-1, keepdim=True)
        x = x / (x.pow(2).mean(-1, keepdim=True) + self.model.norm_eps).sqrt() * weights[f"{name}.weight"]
        return x + weights[f"{name}.bias"] if self.model.norm == "layernorm" else x

    def linear(self, x: Tensor, weights: Weights, name: str) -> Tensor:
        """x·Wᵀ + b; with LoRA's updates of queries and values, or shifted and scaled as LLaMA-Adapter V2 has it."""
        y = x @ weights[f"{name}.weight"].T
        if f"{name}.bias" in weights:
            y = y + weights[f"{name}.bias"]
        if f"{name}.lora_a" in weights:
            y = y + self._lora(x, weights, name)
        if f"{name}.adapter_scale" in weights:
            y = weights[f"{name}.adapter_scale"] * (y + weights[f"{name}.adapter_bias"])
        return y

    def _lora(self, x: Tensor, weights: Weights, name: str) -> Tensor:
        """alpha / r · B·A·x (arXiv:2106.09685), nothing for the keys."""
        rank, scale = self.workload.lora_rank, self.workload.lora_alpha / self.workload.lora_rank
        for_query, for_value = weights[f"{name}.lora_a"][:rank], weights[f"{name}.lora_a"][rank:]
        query = x @ for_query.T @ weights[f"{name}.lora_b_query"].T
        value = x @ for_value.T @ weights[f"{name}.lora_b_value"].T
        return torch.cat((query, torch.zeros_like(value), value), -1) * scale

    def rotated(self, x: Tensor, positions: Tensor) -> Tensor:
        """x [..., length, head size] with channels i and i + n/2 of its first n turned by position · base^(-2i/n)
        (arXiv:2104.09864).
        """
        if self.model.positions != "rotary":
            return x
        num = int(self.head_size * self.model.rotary_fraction)
        rates = self.model.rope_base ** (-torch.arange(0, num, 2, device=x.device, dtype=torch.float64) / num)
        angles = positions.to(torch.float64)[:, None] * rates
        cos, sin = angles.cos().float(), angles.sin().float()
        first, second, still = x[..., : num // 2], x[..., num // 2 : num], x[..., num:]
        return torch.cat((first * cos - second * sin, second * cos + first * sin, still), -1)

    def heads(self, x: Tensor, weights: Weights) -> list[Tensor]:
        """Queries, keys and values of normed x [batch, length, width], each [batch, heads, length, head size]."""
        num, num_kv = self.model.num_heads, self.model.num_kv_heads
        together = (
            self.linear(x, weights, "attention.qkv")
            .reshape(*x.shape[:-1], num + 2 * num_kv, self.head_size)
            .transpose(-2, -3)
        )
        return [together[..., :num, :, :], together[..., num : num + num_kv, :, :], together[..., num + num_kv :, :, :]]

    def attention(self, x: Tensor, weights: Weights) -> Tensor:
        """Causal attention of normed x; a key-value head serves as many query heads as there are to one."""
        positions = torch.arange(x.shape[1], device=x.device)
        query, key, value = self.heads(x, weights)
        query, key = self.rotated(query, positions), self.rotated(key, positions)
        seen = positions[None, :] <= positions[:, None]
        prompt = self._prompt(weights)
        groups, attended = self.model.num_heads // self.model.num_kv_heads, []
        at_once = max(1, MOST_SCORES // (len(x) * len(positions) ** 2))
        for heads in torch.split(torch.arange(self.model.num_heads, device=x.device), at_once):
            own, shared = query[:, heads], heads // groups
            result = self.attend(own, key[:, shared], value[:, shared], seen)
            if prompt is not None:
                keys, values = (part[shared] for part in prompt)
                share = (own @ keys.mT / math.sqrt(self.head_size)).softmax(-1)
                result = result + weights["attention.adapter_gate"][heads][:, None, None] * (share @ values)
            attended.append(result)
        return self.linear(torch.cat(attended, 1).transpose(1, 2).flatten(-2), weights, "attention.out")

    def attend(self, query: Tensor, key: Tensor, value: Tensor, seen: Tensor) -> Tensor:
        """softmax(QKᵀ / √n)·V of some heads, each [batch, heads, length, head size], of what is seen [query, key]."""
        scores = (query @ key.mT / math.sqrt(self.head_size)).masked_fill(~seen, -math.inf)
        return scores.softmax(-1) @ value

    def _prompt(self, weights: Weights) -> tuple[Tensor, Tensor] | None:
        """Keys and values of a learned prompt, which has no positions (LLaMA-Adapter, arXiv:2303.16199)."""
        if "attention.adapter_prompt" not in weights:
            return None
        _, keys, values = self.heads(weights["attention.adapter_prompt"], weights)
        return keys, values

    def keys_and_values(self, x: Tensor, weights: Weights) -> tuple[Tensor, Tensor]:
        """What a cache holds of a block's input x [batch, length, width]: [batch, kv heads, length, head size] each."""
        _, key, value = self.heads(self.norm(x, weights, "attention_norm"), weights)
        return self.rotated(key, torch.arange(x.shape[1], device=x.device)), value

    def mlp(self, x: Tensor, weights: Weights) -> Tensor:
        """SwiGLU (arXiv:2002.05202), or GELU between two matrices, exact or by its tanh approximation."""
        if self.model.mlp == "swiglu":
            gate, up = torch.split(self.linear(x, weights, "mlp.gate_up"), self.model.d_ff, -1)
            return self.linear(gate * gate.sigmoid() * up, weights, "mlp.down")
        up = self.linear(x, weights, "mlp.up")
        if self.model.mlp == "gelu_tanh":
            bent = (math.sqrt(2 / math.pi) * (up + 0.044715 * up**3)).tanh()
        else:
            bent = (up / math.sqrt(2)).erf()
        return self.linear(up * (1 + bent) / 2, weights, "mlp.down")

    def block(self, x: Tensor, weights: Weights) -> Tensor:
        """One after the other with a norm before each, or side by side, then with one norm or two."""
        normed = self.norm(x, weights, "attention_norm")
        attended = self.attention(normed, weights)
        if not self.model.parallel_residual:
            x = x + attended
            return x + self.mlp(self.norm(x, weights, "mlp_norm"), weights)
        other = normed if self.model.shared_norm else self.norm(x, weights, "mlp_norm")
        return x + attended + self.mlp(other, weights)

    # --- names

    def names(self, unit: int | None) -> set[str]:
        """The parameters of a unit, as the source names them."""
        if unit is None:
            return self._names_outside()
        matrices = [f"mlp.{name}" for name in (("gate_up",) if self.model.mlp == "swiglu" else ("up",))]
        matrices += ["attention.qkv", "attention.out", "mlp.down"]
        norms = [
            "attention_norm",
            *(["mlp_norm"] if not (self.model.parallel_residual and self.model.shared_norm) else []),
        ]
        found = {f"{name}.weight" for name in matrices + norms}
        found |= {f"{name}.bias" for name in matrices if self.model.bias}
        found |= {f"{name}.bias" for name in norms if self.model.norm == "layernorm"}
        return found | self._names_added(unit, matrices)

    def _names_added(self, unit: int, matrices: list[str]) -> set[str]:
        method = self.workload.name
        if method == "lora":
            return {f"attention.qkv.{name}" for name in ("lora_a", "lora_b_query", "lora_b_value")}
        found = set()
        if method in ("adapter", "adapter_v2") and unit >= self.workload.adapter_start_layer:
            found |= {"attention.adapter_prompt", "attention.adapter_gate"}
        if method == "adapter_v2":
            found |= {f"{name}.adapter_{what}" for name in matrices for what in ("bias", "scale")}
        return found

    def _names_outside(self) -> set[str]:
        learned, biased = self.model.positions == "learned", self.model.norm == "layernorm"
        return {
            "embedding.weight",
            "norm.weight",
            *(["position_embedding.weight"] if learned else []),
            *(["norm.bias"] if biased else []),
            *([] if self.model.tie_embeddings else ["head.weight"]),
            *(["head.bias"] if self.model.head_bias else []),
            *(["head.adapter_bias", "head.adapter_scale"] if self.workload.name == "adapter_v2" else []),
        }

    def parts(self, name: str, whole: Tensor) -> dict[str, Tensor]:
        """The parts of a parameter that must be judged apart: one that matters little would hide beside another."""
        num, num_kv = self.model.num_heads * self.head_size, self.model.num_kv_heads * self.head_size
        if name.endswith("qkv.lora_a"):
            return _cut(name, whole, query=self.workload.lora_rank, value=self.workload.lora_rank)
        if "attention.qkv." in name and "lora" not in name:
            return _cut(name, whole, query=num, key=num_kv, value=num_kv)
        if "mlp.gate_up." in name:
            return _cut(name, whole, gate=self.model.d_ff, up=self.model.d_ff)
        return {name: whole}

    # --- the whole

    def embedded(self, tokens: Tensor, weights: Weights) -> Tensor:
        """The first block's input of tokens [batch, length]."""
        x = weights["embedding.weight"][tokens]
        if self.model.positions == "learned":
            x = x + weights["position_embedding.weight"][: tokens.shape[1]]
        return x

    def logits(self, x: Tensor, weights: Weights) -> Tensor:
        """Of the last block's output [..., width]; a tied head is the embedding's matrix."""
        head = weights if "head.weight" in weights else {**weights, "head.weight": weights["embedding.weight"]}
        return self.linear(self.norm(x, weights, "norm"), head, "head")

    @torch.no_grad()
    def block_inputs(self, tokens: Tensor, source: Source) -> Iterator[Tensor]:
        """What goes into every block and, at the end, what comes out of the last: each [batch, length, width]."""
        with source(None) as (weights, _):
            x = self.embedded(tokens, weights)
        yield x
        for index in range(self.model.num_layers):
            with source(index) as (weights, _):
                x = self.block(x, weights)
            yield x


def _cut(name: str, whole: Tensor, **rows: int) -> dict[str, Tensor]:
    pieces = torch.split(whole, list(rows.values()))
    return {f"{name} ({what})": piece for what, piece in zip(rows, pieces, strict=True)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Sequences, and how much the cross-entropy of each of their places counts."""

    tokens: Tensor
    """[sequences, length]."""
    targets: Tensor
    """[sequences, length]: the tokens after them."""
    weights: Tensor
    """[sequences, length]; where it is 0 nothing is computed."""


def losses(formulas: Formulas, source: Source, question: Question) -> Tensor:
    """Each sequence's weighted sum of cross-entropies, [sequences]."""
    *_, x = formulas.block_inputs(question.tokens, source)
    with torch.no_grad(), source(None) as (weights, _):
        return _losses(formulas, x, weights, question)


def _losses(formulas: Formulas, x: Tensor, weights: Weights, question: Question) -> Tensor:
    rows, places = question.weights.nonzero(as_tuple=True)
    logits = formulas.logits(x[rows, places], weights)
    chosen = logits.gather(-1, question.targets[rows, places][:, None])[:, 0]
    weighted = (logits.logsumexp(-1) - chosen) * question.weights[rows, places]
    return torch.zeros(len(x), device=x.device).index_add(0, rows, weighted)


def gradients(formulas: Formulas, source: Source, question: Question) -> Iterator[tuple[int | None, Weights]]:
    """The gradients of the sum of `losses`, unit by unit from the last block to the first, then what is outside.

    What is yielded belongs to a unit whose source is still open.
    """
    *inputs, x = formulas.block_inputs(question.tokens, source)
    outside, slope = _through(
        source,
        None,
        x,
        lambda x, weights: _losses(formulas, x, weights, question).sum(),
        torch.ones((), device=x.device),
    )
    for index in reversed(range(len(inputs))):
        with source(index) as (weights, trained):
            found, slope = _gradients(formulas.block, inputs.pop(), weights, trained, slope)
            yield index, found
    with source(None) as (weights, trained):
        slopes = _gradients(lambda _, own: formulas.embedded(question.tokens, own), slope, weights, trained, slope)[0]
        yield None, {name: slopes[name] + outside[name] for name in trained}


def _through(
    source: Source, unit: int | None, x: Tensor, function: Callable[[Tensor, Weights], Tensor], slope: Tensor
) -> tuple[Weights, Tensor]:
    with source(unit) as (weights, trained):
        return _gradients(function, x, weights, trained, slope)


def _gradients(
    function: Callable[[Tensor, Weights], Tensor], x: Tensor, weights: Weights, trained: frozenset[str], slope: Tensor
) -> tuple[Weights, Tensor]:
    """How `slope · function(x, weights)` changes with each trained weight and with x."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        leaves = {name: weight.detach().requires_grad_(name in trained) for name, weight in weights.items()}
        wanted = [x, *(leaves[name] for name in sorted(trained))]
        y = function(x, leaves)
        found = torch.autograd.grad(y, wanted, slope, allow_unused=True) if y.requires_grad else (None,) * len(wanted)
    filled = [torch.zeros_like(leaf) if one is None else one for leaf, one in zip(wanted, found, strict=True)]
    return dict(zip(sorted(trained), filled[1:], strict=True)), filled[0]


# --- 4-bit weights

NORMAL_FLOAT = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
    -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
    0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip
"""The values of 4-bit NormalFloat (QLoRA, arXiv:2305.14314, appendix E)."""
BLOCK, BLOCK_OF_SCALES = 64, 256
"""Values that share a scale, and scales that share one."""


def from_normal_float(packed: Tensor, scales: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The matrix of bytes that hold two values each, the first in the high bits; `scales`: one a block."""
    codes = torch.stack((packed >> 4, packed & 15), -1).flatten().long()
    values = torch.tensor(NORMAL_FLOAT, device=packed.device)[codes]
    return (values.view(-1, BLOCK) * scales[:, None]).view(shape)


def from_scale_codes(codes: Tensor, scales: Tensor, offset: Tensor) -> Tensor:
    """Scales that were quantised themselves, less their mean, to 8 bits of a dynamic data type (arXiv:1511.04561)."""
    values = torch.tensor(dynamic_values(), device=codes.device)[codes.long()]
    per_value = scales.repeat_interleave(BLOCK_OF_SCALES)[: len(values)]
    return values * per_value + offset


def dynamic_values() -> list[float]:
    """Sign, decimal exponent of i bits, fraction of the bits that are left: 256 values, sorted."""
    found = [0.0, 1.0]
    for exponent in range(7):
        edges = [0.1 + 0.9 * step / 2**exponent for step in range(2**exponent + 1)]
        middles = [(low + high) / 2 * 10.0 ** (exponent - 6) for low, high in itertools.pairwise(edges)]
        found += middles + [-middle for middle in middles]
    return sorted(found)
