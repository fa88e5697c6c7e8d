"""The float8 product that quick tests put in the place of oneDNN's own."""

import pytest
import torch

import quick_float8

SCALES = {"tensorwise": ((), ()), "rowwise": ((32, 1), (1, 48))}


@pytest.mark.parametrize("recipe", quick_float8.RECIPES)
def test_the_quick_product_is_torchs_own(recipe):
    generator = torch.Generator().manual_seed(0)
    left = torch.randn(32, 16, generator=generator).to(torch.float8_e4m3fn)
    right = torch.randn(48, 16, generator=generator).to(torch.float8_e4m3fn).t()
    scale_a, scale_b = (torch.rand(shape, generator=generator) + 0.5 for shape in SCALES[recipe])
    own = torch._scaled_mm(left, right, scale_a, scale_b, out_dtype=torch.bfloat16)
    quick = quick_float8.scaled_mm(left, right, scale_a, scale_b, out_dtype=torch.bfloat16)
    torch.testing.assert_close(quick, own, rtol=2**-7, atol=2**-7)
