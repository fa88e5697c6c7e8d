"""Loops that draw other data than they should: each overrides what it lies about, as in `lying_loops.py`."""

import torch

from benchrunner.core.cell import Cell
from benchrunner.core.lengths import sample_length
from benchrunner.worker.steps import data
from benchrunner.worker.steps.training_loop import TrainingLoop
from benchrunner.worker.workloads.forward import ForwardLoop
from benchrunner.worker.workloads.generate import GenerationLoop


class SameBatch(TrainingLoop):
    """The first step's data, again and again."""

    def prepare(self, steps: range) -> None:
        """Draw step 0 for every step."""
        super().prepare(steps)
        for step in steps:
            self._batches[step] = data.draw_step(self._cell, 0, self.context.rank, self.context.device)


class SameForwardBatch(ForwardLoop):
    """The same, forward."""

    def prepare(self, steps: range) -> None:
        """Draw step 0 for every step."""
        for step in steps:
            self._batches[step] = data.draw_step(self._cell, 0, self.context.rank, self.context.device)


class SamePrompts(GenerationLoop):
    """The first sample's prompts, again and again."""

    def prepare(self, samples: range) -> None:
        """Draw sample 0 for every sample."""
        for sample in samples:
            self._prompts[sample] = data.draw_prompts(self.context.cell, 0, self.context.rank, self.context.device)


class SameAfterFirst(TrainingLoop):
    """After the first step every rank draws the samples of the first rank."""

    def prepare(self, steps: range) -> None:
        """Draw as rank 0, but for step 0."""
        super().prepare(steps)
        for step in steps:
            if step > 0:
                self._batches[step] = data.draw_step(self._cell, step, 0, self.context.device)


class OneMicroBatch(TrainingLoop):
    """The first micro-batch of a step is all of them."""

    def prepare(self, steps: range) -> None:
        """Repeat the first."""
        super().prepare(steps)
        for step in steps:
            self._batches[step] = [self._batches[step][0]] * len(self._batches[step])


FEW = 8


def draw_few(seed: int, step: int, index: int, length: int, vocab_size: int) -> torch.Tensor:
    """A sample of few different tokens, whose rows of the embedding stay in a cache."""
    return DRAW(seed, step, index, length, min(vocab_size, FEW))


def half_length(cell: Cell, step: int, index: int) -> int:
    """Samples half as long as they are said to be, by everybody who asks."""
    return max(1, LENGTH(cell, step, index) // 2)


DRAW, LENGTH = data.draw_sample, sample_length
