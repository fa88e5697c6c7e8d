"""Synthetic tokens: the same sample for the same (seed, step, index) whatever the strategy, rank or device."""

import math
from collections import Counter
from collections.abc import Iterable

import numpy as np
import torch

from benchrunner.core.cell import Cell
from benchrunner.worker.model.decoder import IGNORED_TARGET

_TOKENS, _LENGTHS = 0, 1
"""Streams of a sample: its tokens are the same whether or not its length was drawn."""

ALPACA_LONGEST = 1304
"""Tokens of the longest sample of the Alpaca set for Llama 2's tokenizer."""

_ALPACA_MEDIAN, _ALPACA_SPREAD = 104.0, 0.35
"""A log-normal with a mean of 110 tokens: two samples in three have 73 to 148."""


def draw_sample(seed: int, step: int, index: int, length: int, vocab_size: int) -> torch.Tensor:
    """Sample `index` of optimizer step `step`: `length` tokens, uniform over the vocabulary, int64.

    A counter-based generator (Philox) keyed by (seed, step, index) makes every sample independent of all others.
    """
    return torch.from_numpy(_generator(seed, step, index, _TOKENS).integers(0, vocab_size, size=length, dtype=np.int64))


def _generator(seed: int, step: int, index: int, stream: int) -> np.random.Generator:
    key, counter = np.array([seed, stream], dtype=np.uint64), np.array([0, 0, index, step], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


def is_padded(cell: Cell) -> bool:
    """Whether samples differ in length, so that micro-batches are padded."""
    return bool(cell.config.workload.lengths != "fixed")


def sample_length(cell: Cell, step: int, index: int) -> int:
    """Tokens of a sample, as `workload.lengths` says; the very first sample of an Alpaca-like run is the longest."""
    workload, seq_len = cell.config.workload, cell.sizes.seq_len
    if workload.lengths == "fixed":
        return seq_len
    generator = _generator(cell.config.seed, step, index, _LENGTHS)
    if workload.lengths == "uniform":
        return int(generator.integers(workload.min_length, seq_len, endpoint=True))
    longest = min(seq_len, workload.longest or ALPACA_LONGEST)
    if step == index == 0:
        return int(longest)
    drawn = math.exp(math.log(_ALPACA_MEDIAN) + _ALPACA_SPREAD * generator.standard_normal())
    return int(min(max(round(drawn), workload.min_length), longest))


def sample_indices(cell: Cell, rank: int) -> list[list[int]]:
    """This rank's slice of the global batch: a list of sample indices for every micro-step."""
    sizes = cell.sizes
    a_rank = sizes.accumulation_steps * sizes.micro_batch_size
    mine = range(rank * a_rank, (rank + 1) * a_rank)
    return [list(mine[start : start + sizes.micro_batch_size]) for start in range(0, a_rank, sizes.micro_batch_size)]


def draw_step(cell: Cell, step: int, rank: int, device: torch.device) -> list[torch.Tensor]:
    """One optimizer step's micro-batches for this rank, each [micro_batch_size, longest sample + 1] int64 on `device`.

    What follows a shorter sample is -100: `inputs_and_targets` turns that into padding that counts nowhere.
    """
    return [_micro_batch(cell, step, indices).to(device) for indices in sample_indices(cell, rank)]


def _micro_batch(cell: Cell, step: int, indices: list[int]) -> torch.Tensor:
    seed, vocab_size = cell.config.seed, cell.config.model.vocab_size
    samples = [draw_sample(seed, step, index, sample_length(cell, step, index) + 1, vocab_size) for index in indices]
    return torch.nn.utils.rnn.pad_sequence(samples, batch_first=True, padding_value=IGNORED_TARGET)


def inputs_and_targets(cell: Cell, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens and next tokens, each [B, T], of a batch [B, T + 1]; padding is token 0 with a target that is ignored.

    A batch [2, B, T + 1] has the two apart, in the same layout: a compiled graph sees no difference.
    """
    own, following = batch if batch.ndim == 3 else (batch, batch)
    tokens = own[:, :-1]
    return (tokens.clamp(min=0) if is_padded(cell) else tokens), following[:, 1:]


def loss_shares(cell: Cell, step: int, rank: int) -> list[float]:
    """What each micro-step's mean loss counts, so that the mean over ranks of their sum is the mean over all tokens.

    With samples of one length every share is 1 ÷ micro-steps; else real tokens × world size ÷ those of all ranks.
    """
    sizes = cell.sizes
    if not is_padded(cell):
        return [1 / sizes.accumulation_steps] * sizes.accumulation_steps
    total = sum(sample_length(cell, step, index) for index in range(sizes.global_batch_size))
    mine = [sum(sample_length(cell, step, index) for index in indices) for indices in sample_indices(cell, rank)]
    return [num_tokens * sizes.world_size / total for num_tokens in mine]


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


def draw_prompts(cell: Cell, sample: int, rank: int, device: torch.device) -> torch.Tensor:
    """This rank's prompts of one sample of generation, [micro_batch_size, prompt_length] int64 on `device`."""
    length, vocab_size, seed = cell.config.generate.prompt_length, cell.config.model.vocab_size, cell.config.seed
    (indices,) = sample_indices(cell, rank)
    return torch.stack([draw_sample(seed, sample, index, length, vocab_size) for index in indices]).to(device)
