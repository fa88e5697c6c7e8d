"""Finetuning methods: the base is frozen, a few parameters are added to its linears and attentions.

A method gives a module a class that derives from the module's own. So names, ties and types of the base stay as they
are, whatever a precision made of its linears, and the new parameters belong to the same unit of compilation and
sharding as what they adapt.
"""

import types
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchrunner.core.schema import WorkloadConfig
from benchrunner.worker.model.decoder import Decoder
from benchrunner.worker.model.layers import Attention

Adapted = TypeVar("Adapted", bound=nn.Module)

LINEARS = frozenset({"qkv", "out", "gate_up", "up", "down"})
"""Attribute names of the linears in a block."""


class LoRA(nn.Module):
    """A fused qkv linear with low-rank updates of its query and value rows (arXiv:2106.09685).

    y + alpha / r · B·A·dropout(x): A [2r, width] has the rows of both, B is one matrix each and starts at zero.
    """

    lora_a: nn.Parameter
    lora_b_query: nn.Parameter
    lora_b_value: nn.Parameter

    def add(self, attention: Attention, workload: WorkloadConfig, dtype: torch.dtype) -> None:
        """Register the parameters, without storage."""
        rank, width = workload.lora_rank, attention.num_heads * attention.head_size
        self.lora_rank = int(rank)
        self.lora_num_keys = attention.num_kv_heads * attention.head_size
        self.lora_scale = float(workload.lora_alpha) / rank
        self.lora_adds_in_product = True
        """The update is added inside its product; not so for compilers that know no `addmm` and fuse by themselves."""
        self.lora_dropout = nn.Dropout(workload.lora_dropout)
        self.lora_a = _parameter(2 * rank, width, dtype=dtype)
        self.lora_b_query = _parameter(width, rank, dtype=dtype)
        self.lora_b_value = _parameter(self.lora_num_keys, rank, dtype=dtype)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """x [..., width] → queries, keys and values [..., width + 2 · key width]."""
        y: Tensor = super().forward(x, *args, **kwargs)
        low = F.linear(self.lora_dropout(x), self.lora_a)
        if not self.lora_adds_in_product:
            spelled_out: Tensor = y + self.lora_scale * F.linear(low, self._rows())
            return spelled_out
        updated = torch.addmm(y.flatten(0, -2), low.flatten(0, -2), self._rows().t(), alpha=self.lora_scale)
        return updated.view_as(y)

    def _rows(self) -> Tensor:
        """B as one matrix [queries + keys + values, 2r], zero for the keys: one product instead of two and a copy."""
        query = F.pad(self.lora_b_query, (0, self.lora_rank, 0, self.lora_num_keys))
        return torch.cat((query, F.pad(self.lora_b_value, (self.lora_rank, 0))))


class BiasAndScale(nn.Module):
    """A linear whose output is shifted, then scaled, channel by channel (LLaMA-Adapter V2, arXiv:2304.15010)."""

    adapter_bias: nn.Parameter
    adapter_scale: nn.Parameter

    def add(self, num_outputs: int, dtype: torch.dtype) -> None:
        """Register the parameters, without storage."""
        self.adapter_bias = _parameter(num_outputs, dtype=dtype)
        self.adapter_scale = _parameter(num_outputs, dtype=dtype)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """x [..., in] → [..., out]."""
        y: Tensor = super().forward(x, *args, **kwargs)
        return self.adapter_scale.to(y.dtype) * (y + self.adapter_bias.to(y.dtype))


class PromptedAttention(Attention):
    """Attention that also attends to a learned prompt, apart and behind a gate a head that starts at zero.

    LLaMA-Adapter (arXiv:2303.16199): the prompt passes the layer's own projection and has no positions.
    """

    adapter_prompt: nn.Parameter
    adapter_gate: nn.Parameter

    def add(self, workload: WorkloadConfig, dtype: torch.dtype) -> None:
        """Register the parameters, without storage."""
        width = self.num_heads * self.head_size
        self.adapter_prompt = _parameter(workload.adapter_prompt_length, width, dtype=dtype)
        self.adapter_gate = _parameter(self.num_heads, dtype=dtype)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """Attention as the base has it, and the gated one to the prompt."""
        y = super().attend(q, k, v, mask)
        prompted = self._attend_to_prompt(q)
        return y + self.adapter_gate.to(y.dtype)[:, None, None] * prompted

    def _attend_to_prompt(self, q: Tensor) -> Tensor:
        """Attention of q [batch, heads, new, head size] to all of the prompt, [batch, heads, new, head size]."""
        # Not through a fused kernel: a handful of keys is less than one tile of theirs.
        groups = self.num_heads // self.num_kv_heads
        keys, values = (part.repeat_interleave(groups, 1) if groups > 1 else part for part in self._prompt_heads())
        scores = q @ (keys * self.head_size**-0.5).transpose(-2, -1).to(q.dtype)
        prompted: Tensor = scores.softmax(-1).to(q.dtype) @ values.to(q.dtype)
        return prompted

    def _prompt_heads(self) -> tuple[Tensor, Tensor]:
        """Keys and values of the prompt, each [1, kv heads, prompt length, head size].

        Its queries are cut off, not split off: thunder loses the gradient of a part that nobody uses.
        """
        projected = self.qkv(self.adapter_prompt[None])[..., self.num_heads * self.head_size :]
        keys, values = projected.unflatten(-1, (-1, self.head_size)).transpose(1, 2).split(self.num_kv_heads, 1)
        return keys, values


def _parameter(*shape: int, dtype: torch.dtype) -> nn.Parameter:
    return nn.Parameter(torch.empty(shape, dtype=dtype, device="meta"))


def _become(module: nn.Module, mixin: type[Adapted]) -> Adapted:
    """Give `module` a class that derives from `mixin` and from its own.

    One class a pair: were it one a module, a compiler would take each layer for another program.
    """
    pair = mixin, type(module)
    if pair not in _DERIVED:
        _DERIVED[pair] = types.new_class("".join(base.__name__ for base in pair), pair)
    module.__class__ = _DERIVED[pair]
    assert isinstance(module, mixin)
    return module


_DERIVED: dict[tuple[type[nn.Module], type[nn.Module]], type[nn.Module]] = {}


def add_lora(decoder: Decoder, workload: WorkloadConfig, dtype: torch.dtype) -> None:
    """LoRA on query and value of every block."""
    for attention in attentions(decoder):
        _become(attention.qkv, LoRA).add(attention, workload, dtype)


def add_adapter(decoder: Decoder, workload: WorkloadConfig, dtype: torch.dtype) -> None:
    """A prompt and a gate a head in every block from `adapter_start_layer` on."""
    for attention in list(attentions(decoder))[workload.adapter_start_layer :]:
        _become(attention, PromptedAttention).add(workload, dtype)


def add_adapter_v2(decoder: Decoder, workload: WorkloadConfig, dtype: torch.dtype) -> None:
    """The adapter; bias and scale on every linear, the head included; all norms train."""
    add_adapter(decoder, workload, dtype)
    for linear in linears(decoder):
        _become(linear, BiasAndScale).add(linear.out_features, dtype)
    for name, module in decoder.named_modules():
        if name.endswith("norm"):
            module.requires_grad_(True)


METHODS: dict[str, Callable[[Decoder, WorkloadConfig, torch.dtype], None]] = {
    "lora": add_lora,
    "adapter": add_adapter,
    "adapter_v2": add_adapter_v2,
}
"""Workload → what it adds to a frozen decoder."""


def apply(decoder: Decoder, workload: WorkloadConfig, dtype: torch.dtype) -> bool:
    """Freeze the base and add the workload's method, its parameters in `dtype`; False where the workload is none."""
    method = METHODS.get(workload.name)
    if method is None:
        return False
    decoder.requires_grad_(False)
    method(decoder, workload, dtype)
    return True


def attentions(decoder: Decoder) -> Iterator[Attention]:
    """The attention of every block, in order."""
    return (module for module in decoder.blocks.modules() if isinstance(module, Attention))


def linears(decoder: Decoder) -> Iterator[Any]:
    """The linears of all blocks and the head, whatever class a precision gave them."""
    return (module for name, module in decoder.named_modules() if is_linear(name))


def is_linear(name: str) -> bool:
    """Whether a module of the decoder, by its name, is one of its matrices."""
    return name == "head" or name.rpartition(".")[2] in LINEARS
