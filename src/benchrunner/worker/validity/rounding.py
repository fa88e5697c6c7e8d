"""How far rounding alone moves a gradient: the formulas computed once more, each result off by what its format loses.

Most gradients move by little. Those of queries and keys are differences of nearly equal numbers where every place looks
at much the same values, as in a model that was trained for some steps on uniform tokens: there a right model can be
further off than its own gradient is long, and says nothing.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from benchrunner.core.schema import PrecisionConfig
from benchrunner.worker.validity.reference import Formulas, Weights

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float8": torch.float8_e4m3fn,
}
"""`precision.compute_dtype` → the format that results are rounded to."""


def unit_roundoff(precision: PrecisionConfig) -> float:
    """The largest relative error of one rounding to what the precision computes in."""
    return torch.finfo(DTYPES[precision.compute_dtype]).eps / 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Rounded(Formulas):
    """The same formulas with errors of that size, drawn at random, in the forward pass as in the backward one."""

    roundoff: float

    def linear(self, x: Tensor, weights: Weights, name: str) -> Tensor:
        """As the formula has it, each element off by its rounding."""
        return self._rounded(super(Rounded, self).linear(x, weights, name))

    def attend(self, query: Tensor, key: Tensor, value: Tensor, seen: Tensor) -> Tensor:
        """As the formula has it, shares and result off by their rounding.

        Kernels that keep no shares take the sum that softmax's gradient subtracts from the rounded result
        (FlashAttention, arXiv:2205.14135, algorithm 4), which is not quite the sum of what it is subtracted from: the
        last line has its gradient and is 0.
        """
        scores = (query @ key.mT / math.sqrt(self.head_size)).masked_fill(~seen, -math.inf)
        result = self._rounded(self._rounded(scores.softmax(-1)) @ value)
        total = scores.logsumexp(-1, keepdim=True)
        return result + (self._rounded(result) - result).detach() * (total - total.detach())

    def _rounded(self, x: Tensor) -> Tensor:
        return x * (1 + self.roundoff * (2 * torch.rand_like(x) - 1))
