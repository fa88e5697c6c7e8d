"""The state of a training run and its one optimizer step: what is measured and what the checks probe."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext

import torch

from benchrunner.core.rank_result import Choices
from benchrunner.worker.axes import strategy
from benchrunner.worker.axes.precision import formats
from benchrunner.worker.context import Context
from benchrunner.worker.engines.built import Built, build_optimizer
from benchrunner.worker.steps import data


class TrainingLoop:
    """The state of one training run: model, optimizer, the batches drawn and the losses so far."""

    def __init__(self, context: Context, built: Built) -> None:
        self.context = context
        self.built = built
        self._cell = context.cell
        built.model.train()
        torch.manual_seed(context.cell.config.seed + context.rank)  # dropout: ranks drop different values
        self.optimizer = build_optimizer(built, context.cell)
        self._scaler = formats.loss_scaler(context.cell, context.device, by_engine=built.scaler is not None)
        self._clip_norm = context.cell.config.optimizer.clip_norm
        self._sync_always = strategy.syncs_every_micro_step(
            self._cell.config.strategy.kind, self._cell.config.strategy.accumulation_sync
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
        rank, self.prepared = self.context.rank, steps
        for step in self.context.drawing(steps):
            self._batches[step] = data.draw_step(self._cell, step, rank, self.context.device)
            self._shares[step] = data.loss_shares(self._cell, step, rank)

    def step(self, step: int) -> None:
        """One optimizer step over the accumulated micro-batches; nothing here waits for the device."""
        self.backward(step)
        self.apply()

    def backward(self, step: int) -> None:
        """The gradients of a step; its loss is kept."""
        self._losses.append(self.accumulate(self._batches.pop(step), shares=self._shares.pop(step)))

    def ask(self, step: int, batches: list[torch.Tensor], weight: float = 1.0) -> float:
        """This rank's loss of a step with other batches in the place of its first; the gradients are left in place.

        They are `weight` times those of the loss.
        """
        self.prepare(range(step, step + 1))
        self._batches[step] = batches
        self._shares[step] = [share * weight for share in self._shares[step][: len(batches)]]
        self.backward(step)
        return float(self._losses.pop()) / weight

    def gradients_of_own_data(self, step: int, num_micro: int) -> None:
        """The gradients of a step's own first micro-batches, left in place."""
        self.prepare(range(step, step + 1))
        self._batches[step], self._shares[step] = self._batches[step][:num_micro], self._shares[step][:num_micro]
        self.backward(step)
        self._losses.pop()

    def apply(self) -> None:
        """Update the parameters by the gradients that are there."""
        if self._clip_norm is not None:
            self._scaler.unscale_(self.optimizer)
            self.built.clip_gradients(self.optimizer, self._clip_norm)
        self._scaler.step(self.optimizer)
        self._scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.num_steps += 1

    def accumulate(
        self,
        batches: Sequence[torch.Tensor],
        after_forward: Callable[[], None] | None = None,
        shares: Sequence[float] | None = None,
    ) -> torch.Tensor:
        """Forward and backward of all micro-batches; gradients stay in place. Returns the step's mean loss.

        `shares` is what each micro-batch's mean counts; None: all the same.
        """
        total = None
        shares = shares or [1 / len(batches)] * len(batches)
        for micro, (batch, share) in enumerate(zip(batches, shares, strict=True)):
            sync = self._sync_always or micro == len(batches) - 1
            with nullcontext() if len(batches) == 1 else self.built.gradient_sync(sync):
                loss = self._micro_step(batch, share, after_forward)
            total = loss if total is None else total + loss
            if micro == 0 and len(batches) > 1 and self._cell.config.compile.replays_graphs:
                self._keep_gradients()
        assert total is not None
        return total

    def _micro_step(self, batch: torch.Tensor, share: float, after_forward: Callable[[], None] | None) -> torch.Tensor:
        """Forward and backward of one micro-batch [B, T + 1]; returns its share of the step's mean loss, detached."""
        tokens, targets = data.inputs_and_targets(self._cell, batch)
        self.consumed.append((tokens, targets))
        with self.built.forward_context():
            loss = self.built.model(tokens, targets)
        if after_forward is not None:
            after_forward()
        if share != 1.0:
            loss = loss * share
        self.built.backward(self._scaler.scale(loss))
        kept: torch.Tensor = loss.detach().clone()  # the next replay of a CUDA graph overwrites its output
        return kept

    def _keep_gradients(self) -> None:
        """Copy the first gradients, to which the others are added: the next replay of a CUDA graph overwrites them."""
        for parameter in self.built.model.parameters():
            if parameter.grad is not None:
                parameter.grad = parameter.grad.clone()

    def loss_scale(self) -> float:
        """What gradients are multiplied with at present."""
        return float((self.built.scaler or self._scaler).get_scale())

    def choices(self) -> Choices:
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
