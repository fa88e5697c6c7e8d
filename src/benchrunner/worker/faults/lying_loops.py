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
