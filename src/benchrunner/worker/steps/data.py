"""Synthetic tokens: the same sample for the same (seed, step, index) whatever the strategy, rank or device."""

import numpy as np
import torch

from benchrunner.core.cell import Cell
from benchrunner.core.lengths import TOKENS, generator, is_padded, sample_indices, sample_length
from benchrunner.worker.model.decoder import IGNORED_TARGET


def draw_sample(seed: int, step: int, index: int, length: int, vocab_size: int) -> torch.Tensor:
    """Sample `index` of optimizer step `step`: `length` tokens, uniform over the vocabulary, int64.

    A counter-based generator (Philox) keyed by (seed, step, index) makes every sample independent of all others.
    """
    return torch.from_numpy(generator(seed, step, index, TOKENS).integers(0, vocab_size, size=length, dtype=np.int64))


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


def draw_prompts(cell: Cell, sample: int, rank: int, device: torch.device) -> torch.Tensor:
    """This rank's prompts of one sample of generation, [micro_batch_size, prompt_length] int64 on `device`."""
    length, vocab_size, seed = cell.config.generate.prompt_length, cell.config.model.vocab_size, cell.config.seed
    (indices,) = sample_indices(cell, rank)
    return torch.stack([draw_sample(seed, sample, index, length, vocab_size) for index in indices]).to(device)
