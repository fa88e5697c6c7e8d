"""The micro-batches that a cell's seed means, by the definition in docs/metrics.md: shares no code with what drew them.

Every sample has a Philox stream of its own: the key is (seed, 0) for its tokens and (seed, 1) for its length, the
counter (0, 0, sample, step).
"""

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from benchrunner.core.cell import Cell

PADDING, IGNORED = 0, -100
"""Token and target behind the end of a shorter sample."""
MEDIAN, SPREAD, MOST = 104.0, 0.35, 1304
"""Of `workload.lengths=alpaca`: a log-normal, and its longest sample."""


def micro_batches(cell: Cell, rank: int, steps: range) -> Iterator[tuple[Tensor, Tensor]]:
    """Tokens and targets [samples, longest] of a rank's micro-batches, step by step."""
    for step in steps:
        for indices in sample_indices(cell, rank):
            yield _micro_batch(cell, step, indices)


def sample_indices(cell: Cell, rank: int) -> list[range]:
    """The samples of a rank's micro-batches: its part of the global batch, in order."""
    size, num = cell.sizes.micro_batch_size, cell.sizes.accumulation_steps
    return [range(first * size, (first + 1) * size) for first in range(rank * num, (rank + 1) * num)]


def count_tokens(cell: Cell, steps: range) -> tuple[int, int]:
    """Of all ranks in these steps: as drawn, and padded to the longest sample of each micro-batch."""
    real = padded = 0
    for step in steps:
        for rank in range(cell.sizes.world_size):
            for indices in sample_indices(cell, rank):
                lengths = [sample_length(cell, step, index) for index in indices]
                real, padded = real + sum(lengths), padded + max(lengths) * len(lengths)
    return real, padded


def prompts(cell: Cell, rank: int, samples: range) -> Iterator[Tensor]:
    """A rank's prompts [sequences, prompt length], one batch a sample of generation."""
    batch, length = cell.sizes.micro_batch_size, cell.config.generate.prompt_length
    for sample in samples:
        yield torch.stack([_tokens(cell, sample, rank * batch + row, length) for row in range(batch)])


def _micro_batch(cell: Cell, step: int, indices: range) -> tuple[Tensor, Tensor]:
    lengths = [sample_length(cell, step, index) for index in indices]
    tokens = torch.full((len(indices), max(lengths)), PADDING)
    targets = torch.full((len(indices), max(lengths)), IGNORED)
    for row, (index, length) in enumerate(zip(indices, lengths, strict=True)):
        drawn = _tokens(cell, step, index, length + 1)
        tokens[row, : length + 1] = drawn[: tokens.shape[1]]  # the last target is there too, and nobody asks after it
        targets[row, :length] = drawn[1:]
    return tokens, targets


def _tokens(cell: Cell, step: int, index: int, length: int) -> Tensor:
    return torch.from_numpy(_stream(cell, step, index, 0).integers(0, cell.config.model.vocab_size, length, np.int64))


def sample_length(cell: Cell, step: int, index: int) -> int:
    """Tokens of a sample."""
    workload, seq_len = cell.config.workload, cell.sizes.seq_len
    if workload.lengths == "fixed":
        return seq_len
    stream = _stream(cell, step, index, 1)
    if workload.lengths == "uniform":
        return int(stream.integers(workload.min_length, seq_len + 1))
    longest = min(seq_len, workload.longest or MOST)
    drawn = round(MEDIAN * math.exp(SPREAD * stream.standard_normal()))
    return longest if step == index == 0 else min(max(drawn, workload.min_length), longest)


def _stream(cell: Cell, step: int, index: int, which: int) -> np.random.Generator:
    key, counter = [cell.config.seed, which], [0, 0, index, step]
    return np.random.Generator(np.random.Philox(key=np.array(key, np.uint64), counter=np.array(counter, np.uint64)))
