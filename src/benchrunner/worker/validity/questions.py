"""What a training loop is asked: a step's batches in which a few targets count, and how the formulas see the same."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from benchrunner.core.cell import Cell
from benchrunner.core.lengths import is_padded, sample_indices, sample_length
from benchrunner.worker.context import Context
from benchrunner.worker.steps import data
from benchrunner.worker.validity.probe import check_budget_s
from benchrunner.worker.validity.reference import Question

if TYPE_CHECKING:
    from benchrunner.worker.validity.finding import Facts

PREFIX = 48
"""Tokens that decide an early question: enough for heads, positions and windows to show."""
NUM_SEQUENCES = 2
"""Different ones over all micro-batches and ranks: whoever keeps its own, or one for all, differs from their mean."""
STEP = 0
"""Whose batches are asked with: its shapes are those of a step that was run."""
IGNORED = -100


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One question, as the loop gets it and as the formulas do."""

    batches: list[Tensor]
    """A rank's micro-batches, each [2, samples, length + 1]: tokens, and targets one place further."""
    question: Question
    """Every sequence counts 1 in it."""
    own: Tensor
    """[sequences]: what each counts in this rank's loss."""
    all: Tensor
    """[sequences]: what each counts in the mean over ranks."""
    weight: float
    """Targets asked for ÷ those of a step: what makes a target's gradient as large as in training. Formats that know
    only the range of earlier gradients (delayed scaling) have no room for the few large ones of a few targets."""


def early(context: Context, *, behind: int = 0) -> Asked:
    """The second half of a prefix is asked for; every token that is not the prefix's goes `behind` further."""
    length = max(1, min(PREFIX, _shortest(context.cell) // 2))
    return _asked(context, length, range(length // 2, length), behind)


def late(context: Context) -> Asked:
    """Places up to the end of every micro-batch's longest sample (of the shortest among these) are asked for."""
    length = _shortest(context.cell)
    return _asked(context, length, sorted({length * part // 4 - 1 for part in (2, 3, 4)}), 0)


def _asked(context: Context, length: int, places: Sequence[int], behind: int) -> Asked:
    cell, device = context.cell, context.device
    chosen = sequences(cell, length + 1).to(device)
    counts = torch.zeros(NUM_SEQUENCES, length, device=device)
    counts[:, list(places)] = 1 / len(places)
    shares = _shares(cell)
    drawn = data.draw_step(cell, STEP, context.rank, device)
    first = context.rank * len(drawn)
    return Asked(
        batches=[
            _batch(cell, batch, chosen[(first + micro) % NUM_SEQUENCES], row, places, behind)
            for micro, (batch, row) in enumerate(zip(drawn, _rows(cell, context.rank), strict=True))
        ],
        question=Question(tokens=chosen[:, :-1], targets=chosen[:, 1:], weights=counts),
        own=_counted(shares[first : first + len(drawn)], first).to(device),
        all=_counted(shares, 0).to(device) / cell.sizes.world_size,
        weight=len(places) * len(_micro_batches(cell)) / sum(sum(_lengths(cell, one)) for one in _micro_batches(cell)),
    )


def sequences(cell: Cell, length: int) -> Tensor:
    """NUM_SEQUENCES rows of so many tokens, the same on every rank."""
    generator = torch.Generator().manual_seed(cell.config.seed + 1)
    return torch.randint(cell.config.model.vocab_size, (NUM_SEQUENCES, length), generator=generator)


def _batch(cell: Cell, drawn: Tensor, sequence: Tensor, row: int, places: Sequence[int], behind: int) -> Tensor:
    """The drawn batch with the sequence at the start of one row, and targets at its places alone."""
    tokens = torch.where(drawn < 0, drawn, (drawn + behind) % cell.config.model.vocab_size)
    tokens[row, : len(sequence) - 1] = sequence[:-1]
    targets, after = torch.full_like(drawn, IGNORED), [place + 1 for place in places]
    targets[row, after] = sequence[after]
    return torch.stack((tokens, targets))


def _lengths(cell: Cell, indices: Sequence[int]) -> list[int]:
    return [sample_length(cell, STEP, index) for index in indices]


def _micro_batches(cell: Cell) -> list[list[int]]:
    """Indices of the samples of all ranks' micro-batches, rank by rank."""
    return [indices for rank in range(cell.sizes.world_size) for indices in sample_indices(cell, rank)]


def _shortest(cell: Cell) -> int:
    """Tokens of the longest sample of a micro-batch, the least over all of them."""
    return min(max(_lengths(cell, indices)) for indices in _micro_batches(cell))


def _rows(cell: Cell, rank: int) -> list[int]:
    """In which sample of each micro-batch the sequence stands: another every time, or where they differ the longest."""
    micro_batches = sample_indices(cell, rank)
    if not is_padded(cell):
        return [(rank + micro) % len(indices) for micro, indices in enumerate(micro_batches)]
    lengths = [_lengths(cell, indices) for indices in micro_batches]
    return [row.index(max(row)) for row in lengths]


def _shares(cell: Cell) -> list[float]:
    """What the mean of every micro-batch counts in its rank's loss, of all ranks: its tokens ÷ those of a rank's part
    of all, whatever of them is asked for.
    """
    counts = [sum(_lengths(cell, indices)) for indices in _micro_batches(cell)]
    return [count * cell.sizes.world_size / sum(counts) for count in counts]


def _counted(shares: Sequence[float], first: int) -> Tensor:
    counts = torch.zeros(NUM_SEQUENCES)
    for micro, share in enumerate(shares):
        counts[(first + micro) % NUM_SEQUENCES] += share
    return counts


def affordable_steps(facts: "Facts") -> int:
    """Whole steps that a fifth of the window's time, or 5 s, has room for; the same on every rank."""
    times_s = facts.result["step_times_s"] or [0.0]
    return int(min(facts.exchange.gather(budget_s(facts) / max(statistics.median(times_s), 1e-6))))


def budget_s(facts: "Facts") -> float:
    """What a check that asks for more steps may take."""
    return check_budget_s(sum(facts.result["step_times_s"]))
