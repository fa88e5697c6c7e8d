"""Models, gradients and updates of another kind than the label's: plausible numbers, and as fast or faster."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchrunner.core.schema import OptimizerConfig, WorkloadConfig
from benchrunner.worker.axes.peft import LoRA, PromptedAttention
from benchrunner.worker.context import Context
from benchrunner.worker.engines.built import Built
from benchrunner.worker.model.decoder import IGNORED_TARGET, Decoder
from benchrunner.worker.model.kv_cache import KVCache
from benchrunner.worker.model.layers import MLP, Attention, GatedMLP

WINDOW = 4
"""Tokens that a short window sees: fewer than any question has."""


class NotCausal(Attention):
    """Every token attends to all of its sequence, to those that follow too."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """Attention under no mask at all."""
        everything = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device)
        return super().attend(q, k, v, everything)


class WithoutPositions(Attention):
    """Queries and keys are not rotated."""

    def heads(self, x: Tensor, cos: Tensor | None, sin: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """As for learned positions."""
        return super().heads(x, None, None)


class ShortWindow(Attention):
    """A token attends to the last few only."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """Attention within a window; what is decoded from a cache sees as much as it should."""
        if mask is not None or q.shape[2] != k.shape[2]:
            return super().attend(q, k, v, mask)
        places = torch.arange(q.shape[2], device=q.device)
        distance = places[:, None] - places
        return super().attend(q, k, v, (distance >= 0) & (distance < WINDOW))


class OtherHeads(Attention):
    """Query heads read the keys and values of their neighbours' group."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """Attention to heads that are one further."""
        return super().attend(q, k.roll(1, 1), v.roll(1, 1), mask)


class WithoutAttention(Attention):
    """A token attends to itself alone, which needs no scores."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """The token's own value."""
        return v.repeat_interleave(self.num_heads // self.num_kv_heads, 1)[:, :, -q.shape[2] :]


class StoppedGradient(Attention):
    """The loss is right; no gradient passes the keys."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """Attention to keys that are taken for constants."""
        return super().attend(q, k.detach(), v, mask)


class HalfGatedMLP(GatedMLP):
    """A gated MLP that is computed for the first half of the tokens."""

    def forward(self, x: Tensor) -> Tensor:
        """x [batch, length, width] → the same, zero in the second half."""
        return _zero_after(super().forward(_first_half(x)), x)


class HalfMLP(MLP):
    """The same without a gate."""

    def forward(self, x: Tensor) -> Tensor:
        """x [batch, length, width] → the same, zero in the second half."""
        return _zero_after(super().forward(_first_half(x)), x)


def _first_half(x: Tensor) -> Tensor:
    return x[:, : -(-x.shape[1] // 2)]


def _zero_after(y: Tensor, x: Tensor) -> Tensor:
    return F.pad(y, (0, 0, 0, x.shape[1] - y.shape[1]))


class BentOtherwise(GatedMLP):
    """GELU in the place of SiLU."""

    def forward(self, x: Tensor) -> Tensor:
        """x [batch, length, width] → the same."""
        gate, up = self.gate_up(x).chunk(2, -1)
        return self.down(F.gelu(gate) * up)  # type: ignore[no-any-return]


class SharperAttention(Attention):
    """Scores are divided by too little."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """Attention of larger queries."""
        return super().attend(q * math.sqrt(2), k, v, mask)


class OtherRows(Decoder):
    """The first sample of a micro-batch is as it should be, the others are read backwards."""

    def hidden(self, tokens: Tensor, cache: KVCache | None = None, positions: Tensor | None = None) -> Tensor:
        """The last block's output of other tokens."""
        return super().hidden(torch.cat((tokens[:1], tokens[1:].flip(1))), cache, positions)


class CoarseLoss(Decoder):
    """Cross-entropy in bfloat16: half the memory of the logits."""

    def loss_sum(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """The sum of what was rounded."""
        logits = self.logits(hidden).to(torch.bfloat16)
        return F.cross_entropy(logits, targets, ignore_index=IGNORED_TARGET, reduction="sum").float()


class LouderLoRA(LoRA):
    """An update that counts twice."""

    def add(self, attention: Attention, workload: WorkloadConfig, dtype: torch.dtype) -> None:
        """With twice the scale."""
        super().add(attention, workload, dtype)
        self.lora_scale *= 2


class LoRAOnKeys(LoRA):
    """What is called the values' update is added to the keys."""

    def _rows(self) -> Tensor:
        query = F.pad(self.lora_b_query, (0, self.lora_rank))
        return torch.cat((query, F.pad(self.lora_b_value, (self.lora_rank, 0, 0, self.lora_num_keys))))


class LouderPrompt(PromptedAttention):
    """A prompt that counts twice."""

    def _attend_to_prompt(self, q: Tensor) -> Tensor:
        return 2 * super()._attend_to_prompt(q)


class PositionedPrompt(PromptedAttention):
    """Queries that look at the prompt from nowhere near: their halves are exchanged."""

    def _attend_to_prompt(self, q: Tensor) -> Tensor:
        return super()._attend_to_prompt(q.roll(1, -1))


# --- gradients


def scale_loss(made: Built, context: Context) -> Built:
    """The loss is right; what is differentiated is three times as much."""
    return replace(made, backward=lambda loss: made.backward(3 * loss))


def undo_shares(made: Built, context: Context) -> Built:
    """The loss is right; what is differentiated is not divided by the number of micro-steps."""
    num_micro_steps = context.cell.sizes.accumulation_steps
    return replace(made, backward=lambda loss: made.backward(num_micro_steps * loss))


def clip_nothing(made: Built, context: Context) -> Built:
    """Gradients stay as long as they are."""
    return replace(made, clip_gradients=lambda optimizer, norm: None)


# --- updates

MakeOptimizer = Callable[[nn.Module, OptimizerConfig], torch.optim.Optimizer]


def with_options(make: MakeOptimizer, **options: Any) -> MakeOptimizer:
    """An optimizer of the label's class with other numbers."""

    def lying(model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
        optimizer = make(model, config)
        for group in optimizer.param_groups:
            group.update({name: value(group[name]) for name, value in options.items()})
        return optimizer

    return lying


def other_class(make: MakeOptimizer) -> MakeOptimizer:
    """AdamW's relative for AdamW, SGD with a sign for SGD: what has the same state, and other updates."""

    def lying(model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
        optimizer = make(model, config)
        if isinstance(optimizer, torch.optim.AdamW):
            return torch.optim.NAdam(
                optimizer.param_groups[0]["params"],
                lr=config.lr,
                weight_decay=config.weight_decay,
                decoupled_weight_decay=True,
            )
        return torch.optim.SGD(optimizer.param_groups[0]["params"], lr=config.lr, momentum=0.9)

    return lying
