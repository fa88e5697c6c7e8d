"""Against published values."""

import math
from statistics import NormalDist

import pytest

from benchrunner.compare.distributions import digamma, t_cdf, t_quantile, trigamma, trigamma_inverse


@pytest.mark.parametrize(
    ("probability", "df", "value"),
    [
        (0.975, 1, 12.7062047),
        (0.975, 4, 2.7764451),
        (0.995, 10, 3.1692727),
        (0.9, 2, 1.8856181),
        (0.95, 120, 1.6576509),
    ],
)
def test_quantiles_of_student(probability, df, value):
    assert t_quantile(probability, df) == pytest.approx(value, rel=1e-7)
    assert t_quantile(1 - probability, df) == pytest.approx(-value, rel=1e-7)
    assert t_cdf(value, df) == pytest.approx(probability, rel=1e-7)


def test_with_endless_freedom_it_is_the_normal_distribution():
    assert t_quantile(0.975, math.inf) == NormalDist().inv_cdf(0.975)
    assert t_quantile(0.975, 9e5) == pytest.approx(NormalDist().inv_cdf(0.975), rel=1e-5)


def test_digamma_and_trigamma():
    assert digamma(1) == pytest.approx(-0.57721566490153, rel=1e-10)
    assert digamma(0.5) == pytest.approx(-1.96351002602142, rel=1e-10)
    assert trigamma(1) == pytest.approx(math.pi**2 / 6, rel=1e-10)
    assert trigamma(0.5) == pytest.approx(math.pi**2 / 2, rel=1e-10)


@pytest.mark.parametrize("value", [1e-3, 0.1, 1.0, 10.0, 1e4])
def test_the_inverse_of_trigamma(value):
    assert trigamma(trigamma_inverse(value)) == pytest.approx(value, rel=1e-8)
