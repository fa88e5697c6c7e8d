"""What a training loop is asked: a step's batches in which a few targets count, and how the formulas see the same."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from benchrunner.core import checks
from benchrunner.core.cell import Cell
from benchrunner.worker.context import Context
from benchrunner.worker.steps import data
from benchrunner.worker.validity.expected_data import sample_indices, sample_length
from benchrunner.worker.validity.reference import Question

if TYPE_CHECKING:
    from benchrunner.worker.validity.finding import Facts

PREFIX = 48
"""Tokens that decide an early question: enough for heads, positions and windows to show."""
NUM_SEQUENCES = 2
"""Different ones over all micro-batches and ranks: whoever keeps its own, or one for all, differs from their mean."""
NUM_QUESTIONS = 3
"""To a training loop: early places, the same with other tokens behind, late ones."""
NUM_GROUPS = 4
"""Parts of an early question's places, of which a micro-batch is asked for one where there are more micro-batches than
sequences: whoever leaves some out, and counts others more, differs from the mean of all."""
STEP = 0
"""Whose batches are asked with: its shapes are those of a step that was run."""
IGNORED = -100
MOST_FEW = 2
"""Micro-batches of a question that does not ask whether all of them count."""
JUDGED_STEPS = 2
"""Of one micro-batch, by the check `optimizer`, one after the other: an update every second step is found out."""
LEAST_SHARE = 0.2
"""Of the budget, for a check that asks for more steps after others have spent it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One question, as the loop gets it and as the formulas do."""

    batches: list[Tensor]
    """A rank's micro-batches, each [2, samples, length + 1]: tokens, and targets one place further."""
    question: Question
    """What each place counts in the mean over ranks."""
    own: Tensor
    """[sequences, length]: what each counts in this rank's loss."""
    weight: float
    """Targets asked for ÷ those of a step: what makes a target's gradient as large as in training. Formats that know
    only the range of earlier gradients (delayed scaling) have no room for the few large ones of a few targets."""


def early(context: Context, num_micro: int, *, behind: int = 0) -> Asked:
    """The second half of a prefix is asked for, by the first `num_micro` micro-batches; every token that is not the
    prefix's goes `behind` further.
    """
    length = max(1, min(PREFIX, _shortest(context.cell) // 2))
    return _asked(context, num_micro, length, range(length // 2, length), NUM_GROUPS, behind)


def late(context: Context, num_micro: int) -> Asked:
    """Places up to the end of every micro-batch's longest sample (of the shortest among these) are asked for."""
    length = _shortest(context.cell)
    places = sorted({length * part // 4 - 1 for part in (2, 3, 4)})
    return _asked(context, num_micro, length, places, 1, 0, from_end=True)


def _asked(
    context: Context,
    num_micro: int,
    length: int,
    places: Sequence[int],
    most_groups: int,
    behind: int,
    *,
    from_end: bool = False,
) -> Asked:
    cell, device = context.cell, context.device
    chosen, shares = sequences(cell, length + 1).to(device), _shares(cell)
    parts = _parts(len(shares), places, most_groups)
    drawn = data.draw_step(cell, STEP, context.rank, device)
    asked = [range(first, first + num_micro) for first in range(0, len(shares), len(drawn))]
    rows = _rows(cell, context.rank, length, from_end=from_end)
    num_tokens = sum(sum(_lengths(cell, one)) for one in _micro_batches(cell))
    return Asked(
        batches=[
            _batch(cell, batch, chosen[parts[index][0]], row, parts[index][1], behind)
            for index, batch, row in zip(asked[context.rank], drawn, rows, strict=False)
        ],
        question=Question(
            tokens=chosen[:, :-1],
            targets=chosen[:, 1:],
            weights=_counted(shares, parts, chain(*asked), length).to(device) / cell.sizes.world_size,
        ),
        own=_counted(shares, parts, asked[context.rank], length).to(device),
        weight=sum(len(part) for _, part in parts) / num_tokens,
    )


Part = tuple[int, Sequence[int]]
"""A sequence, and its places that a micro-batch is asked for."""


def _parts(num_micro_batches: int, places: Sequence[int], most_groups: int) -> list[Part]:
    """One for each micro-batch of all ranks: all different as long as that goes, after that by chance, so that no half
    of them has what the other half has.
    """
    num_groups = max(1, min(most_groups, len(places), -(-num_micro_batches // NUM_SEQUENCES)))
    all_parts = [
        (sequence, places[group::num_groups]) for group in range(num_groups) for sequence in range(NUM_SEQUENCES)
    ]
    generator = torch.Generator().manual_seed(0)
    more = torch.randint(len(all_parts), (max(0, num_micro_batches - len(all_parts)),), generator=generator).tolist()
    return [*all_parts, *(all_parts[index] for index in more)][:num_micro_batches]


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


def _micro_batches(cell: Cell) -> list[range]:
    """Indices of the samples of all ranks' micro-batches, rank by rank."""
    return [indices for rank in range(cell.sizes.world_size) for indices in sample_indices(cell, rank)]


def _shortest(cell: Cell) -> int:
    """Tokens of the longest sample of a micro-batch, the least over all of them."""
    return min(max(_lengths(cell, indices)) for indices in _micro_batches(cell))


def _rows(cell: Cell, rank: int, length: int, *, from_end: bool) -> list[int]:
    """In which sample of each micro-batch the sequence stands: another every time, of those that are long enough."""
    found = []
    for micro, indices in enumerate(sample_indices(cell, rank)):
        rows = [row for row, own in enumerate(_lengths(cell, indices)) if own >= length]
        place = (rank + micro) % len(rows)
        found.append(rows[-1 - place] if from_end else rows[place])
    return found


def _shares(cell: Cell) -> list[float]:
    """What the mean of every micro-batch counts in its rank's loss, of all ranks: its tokens ÷ those of a rank's part
    of all, whatever of them is asked for.
    """
    counts = [sum(_lengths(cell, indices)) for indices in _micro_batches(cell)]
    return [count * cell.sizes.world_size / sum(counts) for count in counts]


def _counted(shares: Sequence[float], parts: Sequence[Part], micro_batches: Iterable[int], length: int) -> Tensor:
    """[sequences, length]: what each place counts over these micro-batches, each the mean of its own places."""
    counts = torch.zeros(NUM_SEQUENCES, length)
    for index in micro_batches:
        sequence, places = parts[index]
        counts[sequence, list(places)] += shares[index] / len(places)
    return counts


def affordable(facts: "Facts", most_steps: int) -> tuple[int, int]:
    """Steps that the budget has room for, and micro-batches of each: all, or where not one whole step fits, as many as
    leave room for `most_steps`. One micro-batch may take all of the budget, whatever is left of it.
    """
    micro = facts.cell.sizes.accumulation_steps
    room = max(affordable_micro_steps(facts), min(1, _micro_steps_in(facts, budget_s(facts))))
    if room >= micro:
        return room // micro, micro
    return min(room, most_steps), max(1, room // most_steps)


def affordable_micro_steps(facts: "Facts") -> int:
    """Passes over a micro-batch that what is left of the budget has room for; the same on every rank.

    A part of the budget is always there: where a machine is slow at all else, small steps are asked still.
    """
    whole_s = budget_s(facts)
    return _micro_steps_in(facts, max(whole_s - facts.context.checking_s(), LEAST_SHARE * whole_s))


def _micro_steps_in(facts: "Facts", seconds: float) -> int:
    a_step_s = statistics.median(facts.result["step_times_s"] or [0.0])
    return int(min(facts.exchange.gather(seconds * facts.cell.sizes.accumulation_steps / max(a_step_s, 1e-6))))


def budget_s(facts: "Facts") -> float:
    """What all checks together may take."""
    return checks.budget_s(sum(facts.result["step_times_s"]))
