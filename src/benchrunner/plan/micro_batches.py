"""The micro-batches that a cell is predicted by where samples differ in length: those that its run draws.

Memory is decided by the longest of them, time by the sum over a step's.
"""

from collections.abc import Iterable
from dataclasses import replace

from benchrunner.core.cell import Cell, Sizes
from benchrunner.core.lengths import ALPACA_LONGEST, is_padded, padded_lengths

Lengths = tuple[tuple[float, int], ...]
"""(tokens that samples are padded to, number of micro-batches) of a step on one device."""

MOST_SAMPLES = 8192
"""So many are drawn for a prediction; beyond, the longest that may be drawn is assumed."""
MOST_STEPS, MOST_RANKS = 9, 8
"""Steps of the window and ranks that are looked at for a typical step."""
NUM_GROUPS = 8
"""Micro-batches are told apart in so many groups of neighbours by length: their times are almost linear in it."""

_KEPT: dict[tuple[object, ...], Lengths] = {}
"""What was drawn already: the cells of a matrix have the same samples."""


def longest_sizes(cell: Cell) -> Sizes:
    """The cell's sizes with the length that the longest micro-batch of its run is padded to."""
    return (
        replace(cell.sizes, seq_len=_longest(cell)) if is_padded(cell) and cell.sizes.accumulation_steps else cell.sizes
    )


def _longest(cell: Cell) -> int:
    workload, sizes, measure = cell.config.workload, cell.sizes, cell.config.measure
    if workload.lengths == "alpaca":
        return min(sizes.seq_len, workload.longest or ALPACA_LONGEST)
    num_steps = measure.warmup_steps + measure.steps
    if num_steps * sizes.global_batch_size > MOST_SAMPLES:
        return sizes.seq_len
    return max(max(lengths) for step in range(num_steps) for lengths in _ranks(cell, step, sizes.world_size))


def typical_lengths(cell: Cell) -> Lengths:
    """The micro-batches of the median step of the window, on the device that has the most tokens in it."""
    sizes = cell.sizes
    if not is_padded(cell) or not sizes.accumulation_steps:  # none: the global batch does not divide, which rules say
        return ((sizes.seq_len, max(sizes.accumulation_steps, 1)),)
    key = (cell.config.workload, cell.config.seed, sizes, cell.config.measure)
    if key not in _KEPT:
        _KEPT[key] = _draw_typical(cell)
    return _KEPT[key]


def _draw_typical(cell: Cell) -> Lengths:
    first, num_steps = cell.config.measure.warmup_steps, min(cell.config.measure.steps, MOST_STEPS)
    ranks = min(cell.sizes.world_size, MOST_RANKS)
    slowest = [max(_ranks(cell, step, ranks), key=sum) for step in range(first, first + max(num_steps, 1))]
    return _grouped(sorted(slowest, key=sum)[len(slowest) // 2])


def _ranks(cell: Cell, step: int, num_ranks: int) -> list[list[int]]:
    return [padded_lengths(cell, step, rank) for rank in range(num_ranks)]


def _grouped(lengths: Iterable[int]) -> Lengths:
    ordered = sorted(lengths)
    size = -(-len(ordered) // NUM_GROUPS)
    groups = [ordered[start : start + size] for start in range(0, len(ordered), size)]
    return tuple((sum(group) / len(group), len(group)) for group in groups)


def typical_sizes(cell: Cell) -> Sizes:
    """The cell's sizes with the mean length of a typical step."""
    if not is_padded(cell):
        return cell.sizes
    lengths = typical_lengths(cell)
    num_tokens = sum(length * count for length, count in lengths)
    return replace(cell.sizes, seq_len=round(num_tokens / sum(count for _, count in lengths)))
