"""A quick float8 product for CPU: oneDNN's own takes a second for 25 million multiplications."""

import pytest
import torch
from packaging.version import Version
from torch import Tensor

ROWWISE = pytest.param(
    "rowwise", marks=pytest.mark.skipif(Version(torch.__version__) < Version("2.12"), reason="rule.fp8_rowwise_cpu")
)
RECIPES = ["tensorwise", ROWWISE]
"""What a CPU multiplies."""


def scaled_mm(
    left: Tensor,
    right: Tensor,
    scale_a: Tensor,
    scale_b: Tensor,
    bias: Tensor | None = None,
    scale_result: Tensor | None = None,
    out_dtype: torch.dtype | None = None,
    use_fast_accum: bool = False,
) -> Tensor:
    """`torch._scaled_mm` of 8-bit operands [m, k] and [k, n]: their values are exact in fp32, and so summed there."""
    assert scale_result is None and {left.dtype, right.dtype} <= {torch.float8_e4m3fn, torch.float8_e5m2}
    product = (left.float() @ right.float()) * (scale_a * scale_b)
    return (product if bias is None else product + bias).to(out_dtype)


def install() -> None:
    """For the rest of this process."""
    torch._scaled_mm = scaled_mm
