"""How much processes of the same cell differ: pooled over cells, as far as the cells agree about it.

The unit is the process: its steps share a start, clocks, addresses and neighbours, and are no independent values.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from benchrunner.compare.distributions import digamma, trigamma, trigamma_inverse

LEAST_VARIANCE = 1e-8
"""Of logarithms: a spread of 0.01 %. What never varied so far, such as bytes, need not be so for ever."""

Group = Sequence[float]
"""Logarithms of what the processes of one cell on one side measured, in the order of the rounds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """The spread of one process, as a variance of logarithms: of a typical cell, and how far cells differ in it."""

    variance: float
    """Of a typical cell."""
    prior_df: float
    """How many degrees of freedom of its own a cell needs to weigh as much as all others: infinite where they agree."""
    total_df: float
    """Of all cells together."""
    round_share: float
    """Of the variance, what all cells of a round have in common: it was the machine, not the cell."""
    round_df: float

    def of_cell(self, groups: Sequence[Group]) -> tuple[float, float]:
        """(variance, degrees of freedom) for a cell with these groups: its own spread moderated by that of all.

        Smyth (2004), "Linear models and empirical Bayes methods": (d0·s0² + d·s²) / (d0 + d).
        """
        own, df = _sum_of_squares(groups), _df(groups)
        if math.isinf(self.prior_df):
            return self.variance, self._usable(self.total_df)
        moderated = (self.prior_df * self.variance + own) / (self.prior_df + df)
        return max(moderated, LEAST_VARIANCE), self._usable(min(self.prior_df + df, self.total_df))

    def _usable(self, df: float) -> float:
        """What all cells of a round share was seen once a round, not once a cell (Satterthwaite)."""
        alone, shared = (1 - self.round_share) ** 2 / df, self.round_share**2 / max(self.round_df, 1)
        return float(f"{1 / (alone + shared):.3g}")  # three digits are enough, and quantiles are remembered

    @property
    def spread(self) -> float:
        """The standard deviation of a process, as a share: 0.01 is 1 %."""
        return math.sqrt(self.variance)


def estimate_noise(cells: Sequence[Sequence[Group]]) -> Noise | None:
    """The noise of cells with their groups; None where no cell was measured twice on one side."""
    repeated = [groups for groups in cells if _df(groups) > 0]
    total_df = float(sum(map(_df, repeated)))
    if not repeated:
        return None
    pooled = max(sum(map(_sum_of_squares, repeated)) / total_df, LEAST_VARIANCE)
    variance, prior_df = _prior(repeated, pooled)
    share, round_df = _rounds(repeated, pooled)
    return Noise(variance=variance, prior_df=prior_df, total_df=total_df, round_share=share, round_df=round_df)


def _df(groups: Sequence[Group]) -> int:
    return sum(max(len(group) - 1, 0) for group in groups)


def _sum_of_squares(groups: Sequence[Group]) -> float:
    return sum((value - fmean(group)) ** 2 for group in groups if group for value in group)


def _prior(cells: Sequence[Sequence[Group]], pooled: float) -> tuple[float, float]:
    """(s0², d0) of Smyth's prior, by the moments of log s²; one variance for all where they do not differ in it."""
    if len(cells) < 3:
        return pooled, math.inf
    logs = []
    for groups in cells:
        df = _df(groups)
        own = max(_sum_of_squares(groups) / df, LEAST_VARIANCE)
        logs.append(math.log(own) - digamma(df / 2) + math.log(df / 2))
    mean = fmean(logs)
    excess = sum((one - mean) ** 2 for one in logs) / (len(logs) - 1) - fmean(trigamma(_df(g) / 2) for g in cells)
    if excess <= 1e-6:
        return pooled, math.inf
    prior_df = 2 * trigamma_inverse(excess)
    return max(math.exp(mean + digamma(prior_df / 2) - math.log(prior_df / 2)), LEAST_VARIANCE), prior_df


def _rounds(cells: Sequence[Sequence[Group]], pooled: float) -> tuple[float, float]:
    """(share of the variance that all cells of a round have in common, degrees of freedom of the rounds)."""
    squares, df = 0.0, 0
    for side in range(max(map(len, cells))):
        groups = [cell[side] for cell in cells if side < len(cell) and len(cell[side]) > 1]
        means = [fmean(group) for group in groups]
        num_rounds = min(map(len, groups), default=0)
        shifts = [fmean(g[i] - mean for g, mean in zip(groups, means, strict=True)) for i in range(num_rounds)]
        squares, df = squares + sum(shift * shift for shift in shifts), df + max(num_rounds - 1, 0)
    common = squares / df - pooled / len(cells) if df else 0.0
    return min(max(common / pooled, 0.0), 1.0), float(df)
