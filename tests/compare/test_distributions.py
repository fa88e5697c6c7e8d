"""Against published values."""

import math
from statistics import NormalDist

import pytest

from benchrunner.compare.distributions import digamma, incomplete_beta, t_cdf, t_quantile, trigamma, trigamma_inverse


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


def test_half_of_student_is_below_nothing():
    assert t_cdf(0.0, 3) == t_cdf(1e-200, 3) == 0.5 and t_cdf(1.0, 1) == pytest.approx(0.75, rel=1e-12)
    assert t_quantile(0.5, 3) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize(
    ("a", "b", "x", "value"),
    [
        (2, 3, 0.0, 0.0),
        (2, 3, 0.2, 0.1808),
        (2, 3, 0.4, 0.5248),
        (2, 3, 0.9, 0.9963),
        (2, 3, 1.0, 1.0),
        (1, 1, 0.3, 0.3),
    ],
)
def test_the_incomplete_beta_function(a, b, x, value):
    assert incomplete_beta(a, b, x) == pytest.approx(value, rel=1e-12)


def test_digamma_and_trigamma():
    assert digamma(1) == pytest.approx(-0.57721566490153286, rel=5e-12)
    assert digamma(0.5) == pytest.approx(-1.96351002602142348, rel=5e-12)
    assert trigamma(1) == pytest.approx(math.pi**2 / 6, rel=5e-12)
    assert trigamma(0.5) == pytest.approx(math.pi**2 / 2, rel=5e-12)


@pytest.mark.parametrize("value", [1e-3, 0.1, 1.0, 10.0, 1e4])
def test_the_inverse_of_trigamma(value):
    assert trigamma(trigamma_inverse(value)) == pytest.approx(value, rel=1e-8)
