"""The difference between two sides of a cell, and what may be said of it."""

import math
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from benchrunner.compare.distributions import t_quantile
from benchrunner.compare.noise import Group, Noise

Decision = Literal["slower", "faster", "same", "undecided"]

ALPHA = 0.05
"""The share of comparisons of the same thing that may call any of their cells different."""

POWER = 0.8
"""With which the minimum detectable effect is found."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """A difference of logarithms, new − base, with its uncertainty. What is larger is worse: time, bytes."""

    log_ratio: float
    standard_error: float
    df: float

    def margin(self, alpha: float) -> float:
        """Half the width of the two-sided interval that misses the truth with probability `alpha`."""
        return t_quantile(1 - alpha / 2, self.df) * self.standard_error

    def decide(self, min_effect: float, alpha: float) -> Decision:
        """What may be said: different, if the interval at `alpha` excludes no difference and the estimate is at least
        the minimum effect; the same, if both one-sided tests at `ALPHA` exclude a minimum effect; else nothing.

        `min_effect` is a share: 0.03 is 3 %. `alpha` has been corrected for the number of tests by the caller.
        """
        least = math.log1p(min_effect)
        if abs(self.log_ratio) >= least and abs(self.log_ratio) > self.margin(alpha):
            return "slower" if self.log_ratio > 0 else "faster"
        return "same" if abs(self.log_ratio) + self.margin(2 * ALPHA) < least else "undecided"

    def detectable(self, min_effect: float, alpha: float) -> float:
        """The smallest real slowdown, as a share, that would be found with probability `POWER`."""
        needed = max(math.log1p(min_effect), self.margin(alpha)) + t_quantile(POWER, self.df) * self.standard_error
        return math.expm1(needed)


def effect_between(base: Group, new: Group, noise: Noise) -> Effect:
    """Of processes that were measured apart."""
    variance, df = noise.of_cell([base, new])
    error = math.sqrt(variance * (1 / len(base) + 1 / len(new)))
    return Effect(log_ratio=fmean(new) - fmean(base), standard_error=error, df=df)


def effect_of_pairs(differences: Group, noise: Noise) -> Effect:
    """Of pairs, each new − base; `noise` is that of such differences."""
    variance, df = noise.of_cell([differences])
    return Effect(log_ratio=fmean(differences), standard_error=math.sqrt(variance / len(differences)), df=df)
