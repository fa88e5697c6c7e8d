"""Synthetic tokens: the same sample for the same (seed, step, index) whatever the strategy, rank or device."""

import numpy as np
import torch

from benchrunner.cell import Cell


def draw_sample(seed: int, step: int, index: int, length: int, vocab_size: int) -> torch.Tensor:
    """Sample `index` of optimizer step `step`: `length` tokens, uniform over the vocabulary, int64.

    A counter-based generator (Philox) keyed by (seed, step, index) makes every sample independent of all others.
    """
    bits = np.random.Philox(
        key=np.array([seed, 0], dtype=np.uint64), counter=np.array([0, 0, index, step], dtype=np.uint64)
    )
    return torch.from_numpy(np.random.Generator(bits).integers(0, vocab_size, size=length, dtype=np.int64))


def sample_indices(cell: Cell, rank: int) -> list[list[int]]:
    """This rank's slice of the global batch: a list of sample indices for every micro-step."""
    sizes = cell.sizes
    a_rank = sizes.accumulation_steps * sizes.micro_batch_size
    mine = range(rank * a_rank, (rank + 1) * a_rank)
    return [list(mine[start : start + sizes.micro_batch_size]) for start in range(0, a_rank, sizes.micro_batch_size)]


def draw_step(cell: Cell, step: int, rank: int, device: torch.device) -> list[torch.Tensor]:
    """One optimizer step's micro-batches for this rank, each [micro_batch_size, seq_len + 1] int64 on `device`."""
    length, vocab_size, seed = cell.sizes.seq_len + 1, cell.get("model.vocab_size"), cell.get("seed")
    batches = []
    for indices in sample_indices(cell, rank):
        samples = [draw_sample(seed, step, index, length, vocab_size) for index in indices]
        batches.append(torch.stack(samples).to(device))
    return batches


def draw_prompts(cell: Cell, sample: int, rank: int, device: torch.device) -> torch.Tensor:
    """This rank's prompts of one sample of generation, [micro_batch_size, prompt_length] int64 on `device`."""
    length, vocab_size, seed = cell.get("generate.prompt_length"), cell.get("model.vocab_size"), cell.get("seed")
    (indices,) = sample_indices(cell, rank)
    return torch.stack([draw_sample(seed, sample, index, length, vocab_size) for index in indices]).to(device)
