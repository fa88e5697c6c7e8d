"""Loops that draw other data than they should: each overrides what it lies about, as in `lying_loops.py`."""

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
