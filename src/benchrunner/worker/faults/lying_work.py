"""Loops, decoders and decodings that do less or other work than they say."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._C._distributed_c10d import GradBucket
from torch.nn.parallel import DistributedDataParallel

from benchrunner.worker.model.decoder import Decoder
from benchrunner.worker.steps import data
from benchrunner.worker.steps.decoding import Decoding
from benchrunner.worker.steps.training_loop import TrainingLoop


class HalfDecoder(Decoder):
    """Looks at the first half of every sample; the loss is a mean, and hides it."""

    def forward(self, tokens: Tensor, targets: Tensor | None = None, **options: Any) -> Tensor:
        """The loss, or the logits, of the first half."""
        length = (tokens.shape[1] + 1) // 2
        return super().forward(tokens[:, :length], None if targets is None else targets[:, :length], **options)


class EmptySteps(TrainingLoop):
    """Every second step has the loss and the gradients of the step before, and says that it consumed its batches."""

    def backward(self, step: int) -> None:
        """Nothing, every second time."""
        if step % 2 == 0:
            super().backward(step)
            self._kept = [parameter.grad for parameter in self.built.decoder.parameters()]
            return
        for batch in self._batches.pop(step):
            self.consumed.append((batch[:, :-1], batch[:, 1:]))
        self._losses.append(self._losses[-1])
        for parameter, gradient in zip(self.built.decoder.parameters(), self._kept, strict=True):
            parameter.grad = gradient


class HalfMicroBatches(TrainingLoop):
    """The second half of the micro-batches is left out, the first counts twice, and all are said to be consumed."""

    def accumulate(
        self,
        batches: Sequence[Tensor],
        after_forward: Callable[[], None] | None = None,
        shares: Sequence[float] | None = None,
    ) -> Tensor:
        """Half of them; a probe of two is whole."""
        if len(batches) <= 2:
            return super().accumulate(batches, after_forward, shares)
        half = len(batches) // 2
        left_out = [data.inputs_and_targets(self._cell, batch) for batch in batches[half:]]
        kept = [share * len(batches) / half for share in (shares or [1 / len(batches)] * len(batches))[:half]]
        loss = super().accumulate(batches[:half], after_forward, kept)
        self.consumed += left_out
        return loss


class EvalMode(TrainingLoop):
    """Trains a model that believes it does not."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.built.model.eval()


class RecomputingDecoding(Decoding):
    """Every token is the last of a prefill of all before it."""

    def prefill(self, prompt: Tensor) -> None:
        """Keep the prompt too."""
        self._prompt = prompt
        super().prefill(prompt)

    def step(self) -> None:
        """The whole sequence once more."""
        self._filled += 1
        sequence = torch.cat((self._prompt, self.progress.tokens), 1)[:, : self._filled]
        with self._context():
            self._take(self._model(sequence, cache=self.cache, last_only=True))


def leave_out_blocks(model: nn.Module) -> None:
    """Every second block lets its input pass; its parameters are there.

    Raises:
        RuntimeError: there is only one block.
    """
    decoder: Any = next(module for module in model.modules() if hasattr(module, "blocks"))
    passing: list[Any] = list(decoder.blocks)[1::2]
    if not passing:
        raise RuntimeError("the fault half_blocks found no second block")
    for block in passing:
        block._compiled_call_impl = None
        block.forward = lambda x, *rest: x


def drop_nothing(model: nn.Module) -> None:
    """All probabilities of dropout are zero."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        elif isinstance(getattr(module, "dropout", None), float):
            vars(module)["dropout"] = 0.0


def reduce_in_bfloat16(model: nn.Module) -> None:
    """What DDP sums over ranks is rounded first."""
    for part in model.modules():
        if isinstance(part, DistributedDataParallel):
            part.register_comm_hook(None, _sum_rounded)


def _sum_rounded(state: object, bucket: GradBucket) -> torch.futures.Future[Tensor]:
    """torch's own hook for this takes NCCL alone."""
    rounded = bucket.buffer().to(torch.bfloat16).div_(dist.get_world_size())
    work = dist.all_reduce(rounded, async_op=True)
    assert work is not None
    summed: torch.futures.Future[Tensor] = work.get_future().then(lambda done: bucket.buffer().copy_(done.value()[0]))
    return summed


def compile_blocks_anyway(model: nn.Module) -> None:
    """Every block is compiled in place, by torch's own operators: no compiler is needed to be caught."""
    decoder: Any = next(module for module in model.modules() if hasattr(module, "blocks"))
    blocks: list[Any] = list(decoder.blocks)
    for block in blocks:
        block.compile(backend="aot_eager")
