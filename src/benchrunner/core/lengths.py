"""Which samples a rank's micro-batches have and how long they are: the same for the worker and for a prediction."""

import math
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING

from benchrunner.core.cell import Cell
from benchrunner.core.schema import WorkloadConfig

if TYPE_CHECKING:
    import numpy as np

TOKENS, LENGTHS = 0, 1
"""Streams of a sample: its tokens are the same whether or not its length was drawn."""

ALPACA_LONGEST = 1304
"""Tokens of the longest sample of the Alpaca set for Llama 2's tokenizer."""

_ALPACA_MEDIAN, _ALPACA_SPREAD = 104.0, 0.35
"""A log-normal with a mean of 110 tokens: two samples in three have 73 to 148."""


def generator(seed: int, step: int, index: int, stream: int) -> "np.random.Generator":
    """A counter-based generator (Philox) keyed by (seed, step, index): every sample is independent of all others."""
    import numpy as np  # a plan starts without it

    key, counter = np.array([seed, stream], dtype=np.uint64), np.array([0, 0, index, step], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


def is_padded(cell: Cell) -> bool:
    """Whether samples differ in length, so that micro-batches are padded."""
    return bool(cell.config.workload.lengths != "fixed")


def sample_length(cell: Cell, step: int, index: int) -> int:
    """Tokens of a sample, as `workload.lengths` says; the very first sample of an Alpaca-like run is the longest."""
    if not is_padded(cell):
        return cell.sizes.seq_len
    return _draw_length(cell.config.workload, cell.config.seed, cell.sizes.seq_len, step, index)


@lru_cache(maxsize=2**16)
def _draw_length(workload: WorkloadConfig, seed: int, seq_len: int, step: int, index: int) -> int:
    """Kept, since a plan asks for the same samples cell after cell."""
    drawing = generator(seed, step, index, LENGTHS)
    if workload.lengths == "uniform":
        return int(drawing.integers(workload.min_length, seq_len, endpoint=True))
    longest = min(seq_len, workload.longest or ALPACA_LONGEST)
    if step == index == 0:
        return int(longest)
    drawn = math.exp(math.log(_ALPACA_MEDIAN) + _ALPACA_SPREAD * drawing.standard_normal())
    return int(min(max(round(drawn), workload.min_length), longest))


def sample_indices(cell: Cell, rank: int) -> list[list[int]]:
    """This rank's slice of the global batch: a list of sample indices for every micro-step."""
    sizes = cell.sizes
    a_rank = sizes.accumulation_steps * sizes.micro_batch_size
    mine = range(rank * a_rank, (rank + 1) * a_rank)
    return [list(mine[start : start + sizes.micro_batch_size]) for start in range(0, a_rank, sizes.micro_batch_size)]


def padded_lengths(cell: Cell, step: int, rank: int) -> list[int]:
    """Tokens that each sample of a micro-step is padded to, micro-step by micro-step."""
    return [max(sample_length(cell, step, index) for index in indices) for indices in sample_indices(cell, rank)]


def count_lengths(cell: Cell, steps: Iterable[int]) -> tuple[Counter[int], Counter[int]]:
    """Length → samples of these steps over all ranks: as drawn, and padded to the longest of their micro-batch."""
    real: Counter[int] = Counter()
    padded: Counter[int] = Counter()
    for step in steps:
        for rank in range(cell.sizes.world_size):
            for indices in sample_indices(cell, rank):
                lengths = [sample_length(cell, step, index) for index in indices]
                real.update(lengths)
                padded[max(lengths)] += len(lengths)
    return real, padded
