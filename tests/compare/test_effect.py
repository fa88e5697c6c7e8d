"""The formulas of a difference, by hand."""

import math

import pytest

from benchrunner.compare.distributions import t_quantile
from benchrunner.compare.effect import Effect, effect_between, effect_of_pairs
from benchrunner.compare.noise import Noise

NOISE = Noise(variance=0.04, prior_df=math.inf, total_df=10.0, round_share=0.0, round_df=0.0)


def test_the_error_of_a_difference_is_that_of_both_sides():
    effect = effect_between([1.0, 2.0], [3.0, 4.0, 5.0], NOISE)
    assert effect.log_ratio == 2.5
    assert effect.standard_error == pytest.approx(0.2 * math.sqrt(1 / 2 + 1 / 3))
    assert effect.df == 10.0


def test_the_error_of_pairs_is_that_of_their_mean():
    effect = effect_of_pairs([0.1, 0.2, 0.3, 0.4], NOISE)
    assert (effect.log_ratio, effect.standard_error, effect.df) == (pytest.approx(0.25), pytest.approx(0.1), 10.0)


def test_the_interval_and_what_it_would_show():
    effect = Effect(log_ratio=0.0, standard_error=0.1, df=10.0)
    assert effect.margin(0.05) == pytest.approx(2.2281389 * 0.1)
    assert effect.detectable(0.03, 0.05) == pytest.approx(math.expm1(0.22281389 + t_quantile(0.8, 10.0) * 0.1))
    sure = Effect(log_ratio=0.0, standard_error=1e-4, df=10.0)
    assert sure.detectable(0.03, 0.05) == pytest.approx(math.expm1(math.log1p(0.03) + t_quantile(0.8, 10.0) * 1e-4))


@pytest.mark.parametrize(
    ("log_ratio", "error", "decision"),
    [
        (math.log1p(0.03), 1e-6, "slower"),
        (-math.log1p(0.03), 1e-6, "faster"),
        (0.2228, 0.1, "undecided"),
        (0.2229, 0.1, "slower"),
        (0.02, (math.log1p(0.03) - 0.02001) / 1.812461, "same"),
        (0.02, (math.log1p(0.03) - 0.01999) / 1.812461, "undecided"),
    ],
)
def test_the_limits_of_a_decision(log_ratio, error, decision):
    assert Effect(log_ratio=log_ratio, standard_error=error, df=10.0).decide(0.03, 0.05) == decision


def test_a_cells_own_spread_is_moderated_by_that_of_all():
    noise = Noise(variance=0.04, prior_df=2.0, total_df=100.0, round_share=0.0, round_df=0.0)
    assert noise.of_cell([[0.0, 2.0], [5.0]]) == (pytest.approx((2.0 * 0.04 + 2.0) / 3.0), 3.0)
    assert noise.of_cell([[0.0], [5.0]]) == (pytest.approx(0.04), 2.0)
    few = Noise(variance=0.04, prior_df=2.0, total_df=2.5, round_share=0.0, round_df=0.0)
    assert few.of_cell([[0.0, 2.0], [5.0]])[1] == 2.5


def test_what_rounds_share_weighs_by_the_rounds():
    noise = Noise(variance=0.04, prior_df=math.inf, total_df=10.0, round_share=0.5, round_df=4.0)
    assert noise.of_cell([[0.0]])[1] == float(f"{1 / (0.25 / 10.0 + 0.25 / 4.0):.3g}")
    alone = Noise(variance=0.04, prior_df=math.inf, total_df=10.0, round_share=1.0, round_df=0.0)
    assert alone.of_cell([[0.0]])[1] == 1.0
