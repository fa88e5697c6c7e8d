"""The training loop: forward, backward and optimizer step on a fresh synthetic batch every step."""

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch

from benchrunner.worker import data, lies, precision, strategy, validity
from benchrunner.worker.attention import attention_backend, chosen_backend
from benchrunner.worker.build import Built, build, build_optimizer
from benchrunner.worker.context import Context
from benchrunner.worker.counts import counts_of_lengths, flops_block
from benchrunner.worker.measure import describe_device
from benchrunner.worker.sampling import sample_parameters
from benchrunner.worker.window import Steps, measure


def run(context: Context) -> dict[str, Any]:
    """Train as the cell says and return the rank's result (keys: docs/metrics.md).

    Raises:
        FloatingPointError: a step's loss is not finite.
    """
    with attention_backend(context.cell):
        context.phase("build")
        loop = TrainingLoop(context, build(context))
        initial = sample_parameters(loop.built.decoder)
        window = measure(context, Steps(prepare=loop.prepare, run=loop.step))
        losses = loop.mean_losses()
        attention = chosen_backend(context.cell, context.device)
        _require_finite(losses, loop.own_losses())
        choices = {"attention": attention} | loop.choices()
        result = rank_result(context, loop.built, window) | {"losses": losses, "choices": choices}
        result |= counts_of_lengths(context.cell, loop.prepared)
        result["checks"] = validity.check_training(loop, result, initial)
    return result


class TrainingLoop:
    """The state of one training run: model, optimizer, the batches drawn and the losses so far."""

    def __init__(self, context: Context, built: Built) -> None:
        self.context = context
        self.built = built
        self._cell = context.cell
        built.model.train()
        torch.manual_seed(context.cell.get("seed") + context.rank)  # dropout: ranks drop different values
        self.optimizer = build_optimizer(built, context.cell)
        self._scaler = precision.loss_scaler(context.cell, context.device, by_engine=built.scaler is not None)
        self._clip_norm = context.cell.get("optimizer.clip_norm")
        self._sync_always = strategy.syncs_every_micro_step(
            self._cell.get("strategy.kind"), self._cell.get("strategy.accumulation_sync")
        )
        self._batches: dict[int, list[torch.Tensor]] = {}
        self._shares: dict[int, list[float]] = {}
        self.prepared = range(0)
        """The steps whose data were drawn last: those of the window, after it."""
        self._losses: list[torch.Tensor] = []
        self.num_steps = 0
        """Optimizer steps applied so far."""
        self.consumed: list[tuple[torch.Tensor, torch.Tensor]] = []
        """Tokens and targets of every micro-batch that went through the model, kept to be counted."""

    def prepare(self, steps: range) -> None:
        """Draw the batches of these steps onto the device."""
        rank = 0 if self.context.fault_is("same_data") else self.context.rank
        self.prepared = steps
        for step in steps:
            self._batches[step] = data.draw_step(self._cell, step, rank, self.context.device)
            self._shares[step] = data.loss_shares(self._cell, step, rank)

    def step(self, step: int) -> None:
        """One optimizer step over the accumulated micro-batches; nothing here waits for the device."""
        self.backward(step)
        self.apply()

    def backward(self, step: int) -> None:
        """The gradients of a step; its loss is kept."""
        self._losses.append(self.accumulate(self._batches.pop(step), shares=self._shares.pop(step)))

    def apply(self) -> None:
        """Update the parameters by the gradients that are there."""
        if self._clip_norm is not None:
            self._scaler.unscale_(self.optimizer)
            self.built.clip_gradients(self.optimizer, self._clip_norm)
        self._scaler.step(self.optimizer)
        self._scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.num_steps += 1
        if self.context.fault_is("recompile"):
            lies.compile_something()

    def accumulate(
        self,
        batches: Sequence[torch.Tensor],
        after_forward: Callable[[], None] | None = None,
        shares: Sequence[float] | None = None,
    ) -> torch.Tensor:
        """Forward and backward of all micro-batches; gradients stay in place. Returns the step's mean loss.

        `shares` is what each micro-batch's mean counts; null: all the same.
        """
        total = None
        shares = shares or [1 / len(batches)] * len(batches)
        if self.context.fault_is("wrong_scale"):
            shares = [1.0] * len(batches)
        for micro, (batch, share) in enumerate(zip(batches, shares, strict=True)):
            sync = self._sync_always or micro == len(batches) - 1
            with nullcontext() if len(batches) == 1 else self.built.gradient_sync(sync):
                loss = self._micro_step(batch, share, after_forward)
            total = loss if total is None else total + loss
        if self.context.fault_is("double_reduce"):
            lies.scale_gradients(self.built.decoder, self.context.world_size)
        if self.context.fault_is("frozen"):
            lies.drop_one_gradient(self.built.decoder)
        assert total is not None
        return total

    def _micro_step(self, batch: torch.Tensor, share: float, after_forward: Callable[[], None] | None) -> torch.Tensor:
        """Forward and backward of one micro-batch [B, T + 1]; returns its share of the step's mean loss, detached."""
        if self.context.fault_is("short_batch"):
            batch = lies.half(batch)
        tokens, targets = data.inputs_and_targets(self._cell, batch)
        self.consumed.append((tokens, targets))
        with self.built.forward_context():
            loss = self.built.model(tokens, targets)
        if after_forward is not None:
            after_forward()
        if share != 1.0:
            loss = loss * share
        self.built.backward(self._scaler.scale(loss))
        detached: torch.Tensor = loss.detach()
        return detached

    def loss_scale(self) -> float:
        """What gradients are multiplied with at present."""
        return float((self.built.scaler or self._scaler).get_scale())

    def choices(self) -> dict[str, Any]:
        """What precision and loss scaling decided by themselves."""
        return self.built.choices | (self.built.scaler or self._scaler).choices()

    def own_losses(self) -> list[float]:
        """Every step's loss so far, of this rank's samples alone."""
        values: list[float] = torch.stack([loss.float() for loss in self._losses]).tolist()
        return values

    def mean_losses(self) -> list[float]:
        """Every step's loss so far, the fp32 mean over all ranks."""
        losses = torch.stack([loss.float() for loss in self._losses])
        values: list[float] = strategy.broadcast_free_mean(losses, self.context.world_size).tolist()
        return values


def _require_finite(losses: list[float], own: list[float]) -> None:
    """A rank whose own loss was still finite when the mean no longer was is not the one that began it.

    Raises:
        FloatingPointError: a step's loss is not finite.
        RuntimeError: that of another rank is not.
    """
    bad = next((step for step, loss in enumerate(losses) if not math.isfinite(loss)), None)
    if bad is None:
        return
    if math.isfinite(own[bad]):
        raise RuntimeError(f"peer failure: the loss of step {bad} is {losses[bad]}, and finite on this rank")
    raise FloatingPointError(f"the loss of step {bad} is {losses[bad]}")


def rank_result(context: Context, built: Built, window: dict[str, Any]) -> dict[str, Any]:
    """What every workload returns of a rank, around the measured window."""
    cell = context.cell
    tokens = cell.sizes.global_batch_size * cell.sizes.seq_len
    return {
        "workload": cell.axes["workload"],
        "device": describe_device(context.device),
        "num_parameters": built.num_parameters,
        "num_trainable_parameters": built.num_trainable_parameters,
        "tokens_per_step": tokens,
        "padded_tokens_per_step": tokens,
        "samples_per_step": cell.sizes.global_batch_size,
        "flops": flops_block(cell),
        **window,
    }
