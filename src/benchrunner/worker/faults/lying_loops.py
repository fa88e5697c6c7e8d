"""Loops that lie: each overrides what it lies about and is put in front of a workload's own class."""

import itertools
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from benchrunner.worker.context import Context
from benchrunner.worker.faults.patch import Patch, in_module
from benchrunner.worker.steps.decoding import Decoding
from benchrunner.worker.steps.training_loop import TrainingLoop
from benchrunner.worker.workloads.forward import ForwardLoop
from benchrunner.worker.workloads.generate import GenerationLoop

_COUNTER = itertools.count()


def in_front(lie: type, module: ModuleType, name: str) -> Patch:
    """The class `name` of a module, lying."""
    return in_module(module, name, type(lie.__name__, (lie, vars(module)[name]), {}))


class Frozen(TrainingLoop):
    """The first trainable parameter gets no gradient."""

    def accumulate(self, *arguments: Any, **options: Any) -> Tensor:
        """Lose one gradient."""
        loss = super().accumulate(*arguments, **options)
        next(parameter for parameter in self.built.decoder.parameters() if parameter.requires_grad).grad = None
        return loss


class DoublyReduced(TrainingLoop):
    """Every gradient is as many times too large as there are ranks."""

    def accumulate(self, *arguments: Any, **options: Any) -> Tensor:
        """Scale what was reduced."""
        loss = super().accumulate(*arguments, **options)
        for parameter in self.built.decoder.parameters():
            if parameter.grad is not None:
                parameter.grad.mul_(self.context.world_size)
        return loss


class WronglyScaled(TrainingLoop):
    """Every micro-batch counts as if it were alone."""

    def accumulate(
        self,
        batches: Sequence[Tensor],
        after_forward: Callable[[], None] | None = None,
        shares: Sequence[float] | None = None,
    ) -> Tensor:
        """Take no notice of the shares."""
        return super().accumulate(batches, after_forward, [1.0] * len(batches))


class PilingUp(TrainingLoop):
    """An update leaves its gradients for the next step to add to."""

    def apply(self) -> None:
        """Clear nothing."""
        clear, self.optimizer.zero_grad = self.optimizer.zero_grad, _leave  # type: ignore[method-assign]
        try:
            super().apply()
        finally:
            self.optimizer.zero_grad = clear  # type: ignore[method-assign]


def _leave(set_to_none: bool = True) -> None:
    """In the place of an optimizer's `zero_grad`."""


class SeldomUpdating(TrainingLoop):
    """Every second step has no update."""

    def apply(self) -> None:
        """Nothing, every second time."""
        if self.num_steps % 2:
            super().apply()
            return
        self.optimizer.zero_grad(set_to_none=True)
        self.num_steps += 1


class IdleInWindow(TrainingLoop):
    """Steps have updates as long as nobody measures them."""

    def apply(self) -> None:
        """Nothing, in the window."""
        if self.context.status.phase != "measure":
            super().apply()
            return
        self.optimizer.zero_grad(set_to_none=True)
        self.num_steps += 1


class SameDrops(TrainingLoop):
    """Every micro-step of every rank drops the same values."""

    def _micro_step(self, batch: Tensor, share: float, after_forward: Callable[[], None] | None) -> Tensor:
        torch.manual_seed(0)
        return super()._micro_step(batch, share, after_forward)


class Recompiling(TrainingLoop):
    """Something is compiled in every step."""

    def apply(self) -> None:
        """Compile after the update."""
        super().apply()
        compile_something()


def compile_something() -> None:
    """Have Dynamo compile one more frame, with a constant that it has not seen."""
    constant = next(_COUNTER)
    torch.compile(lambda x: x + constant, backend="eager", dynamic=False)(torch.zeros(1))


class WithSameData(TrainingLoop):
    """Every rank draws the samples of the first."""

    def prepare(self, steps: range) -> None:
        """Draw as rank 0."""
        own = self.context.rank
        self.context.rank = 0
        try:
            super().prepare(steps)
        finally:
            self.context.rank = own


class ShortTraining(TrainingLoop):
    """Half of each sample is trained on."""

    def _micro_step(self, batch: Tensor, share: float, after_forward: Callable[[], None] | None) -> Tensor:
        return super()._micro_step(half(batch), share, after_forward)


class ShortForward(ForwardLoop):
    """Half of each sample passes."""

    def logits(self, batch: Tensor) -> Tensor:
        """The logits of the first half."""
        return super().logits(half(batch))


def half(batch: Tensor) -> Tensor:
    """The first half of every sample [..., length + 1], and one token more."""
    return batch[..., : (batch.shape[-1] - 1) // 2 + 1]


class ShortGeneration(GenerationLoop):
    """A token too few is generated.

    Raises:
        RuntimeError: the prefill makes the only one.
    """

    def __init__(self, context: Context, decoding: Decoding) -> None:
        super().__init__(context, decoding)
        if self._num_steps == 0:
            raise RuntimeError("the fault short_batch found no token to leave out")
        self._num_steps -= 1
