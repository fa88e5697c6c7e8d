"""The training loop: forward, backward and optimizer step on a fresh synthetic batch every step."""

import math
from typing import Any

import torch
from torch import nn

from benchrunner import arithmetic
from benchrunner.cell import Cell
from benchrunner.worker import data, strategy
from benchrunner.worker.attention import attention_backend, chosen_backend
from benchrunner.worker.build import Built, build, build_optimizer
from benchrunner.worker.context import Context
from benchrunner.worker.measure import describe_device
from benchrunner.worker.window import Steps, measure


def run(context: Context) -> dict[str, Any]:
    """Train as the cell says and return the rank's result (keys: docs/metrics.md).

    Raises:
        FloatingPointError: a step's loss is not finite.
    """
    with attention_backend(context.cell):
        context.phase("build")
        loop = TrainingLoop(context, build(context))
        window = measure(context, Steps(prepare=loop.prepare, run=loop.step))
        losses = loop.mean_losses()
        attention = chosen_backend(context.cell, context.device)
    _require_finite(losses)
    return _result(context, loop.built, window) | {"losses": losses, "choices": {"attention": attention}}


class TrainingLoop:
    """The state of one training run: model, optimizer, the batches drawn and the losses so far."""

    def __init__(self, context: Context, built: Built) -> None:
        self.context = context
        self.built = built
        self._cell = context.cell
        self._optimizer = build_optimizer(built, context.cell)
        self._clip_norm = context.cell.get("optimizer.clip_norm")
        self._sync_always = strategy.syncs_every_micro_step(
            self._cell.get("strategy.kind"), self._cell.get("strategy.accumulation_sync")
        )
        self._batches: dict[int, list[torch.Tensor]] = {}
        self._losses: list[torch.Tensor] = []

    def prepare(self, steps: range) -> None:
        """Draw the batches of these steps onto the device."""
        for step in steps:
            self._batches[step] = data.draw_step(self._cell, step, self.context.rank, self.context.device)

    def step(self, step: int) -> None:
        """One optimizer step over the accumulated micro-batches; nothing here waits for the device."""
        batches = self._batches.pop(step)
        total = None
        for micro, batch in enumerate(batches):
            if len(batches) > 1:
                strategy.set_gradient_sync(self.built.model, self._sync_always or micro == len(batches) - 1)
            loss = self._micro_step(batch, len(batches))
            total = loss if total is None else total + loss
        if self._clip_norm is not None:
            nn.utils.clip_grad_norm_(self.built.decoder.parameters(), self._clip_norm, foreach=True)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        assert total is not None
        self._losses.append(total)

    def _micro_step(self, batch: torch.Tensor, num_micro_steps: int) -> torch.Tensor:
        """Forward and backward of one micro-batch [B, T + 1]; returns its share of the step's mean loss, detached."""
        with self.built.forward_context():
            loss = self.built.model(batch[:, :-1], batch[:, 1:])
        if num_micro_steps > 1:
            loss = loss / num_micro_steps
        loss.backward()
        detached: torch.Tensor = loss.detach()
        return detached

    def mean_losses(self) -> list[float]:
        """Every step's loss so far, the fp32 mean over all ranks."""
        losses = torch.stack([loss.float() for loss in self._losses])
        values: list[float] = strategy.broadcast_free_mean(losses, self.context.world_size).tolist()
        return values


def _require_finite(losses: list[float]) -> None:
    bad = next((step for step, loss in enumerate(losses) if not math.isfinite(loss)), None)
    if bad is not None:
        raise FloatingPointError(f"the loss of step {bad} is {losses[bad]}")


def _result(context: Context, built: Built, window: dict[str, Any]) -> dict[str, Any]:
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


def flops_block(cell: Cell) -> dict[str, Any]:
    """FLOPs of one optimizer step over all devices; attention counted as computed, i.e. causal."""
    model_flops = arithmetic.train_flops_per_step(cell.config, cell.sizes)
    compute = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}[cell.get("precision.compute_dtype")]
    return {
        "convention": "causal",
        "model_per_step": model_flops,
        "hardware_per_step": arithmetic.hardware_flops_per_step(cell.config, cell.sizes),
        "by_dtype": {compute: model_flops},
    }
