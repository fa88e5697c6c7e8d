"""The spread of a process is pooled over cells as far as they agree about it."""

import math
import random

import pytest

from benchrunner.compare.noise import _rounds, estimate_noise

DRAW = random.Random(7)


def cells(spreads, num_processes=5, rounds=0.0):
    """Two sides of so many processes of cells with these spreads; `rounds` is shared by all cells of a round."""
    shifts = [[DRAW.gauss(0, rounds) for _ in range(num_processes)] for _ in range(2)]
    return [[[shift + DRAW.gauss(0, spread) for shift in side] for side in shifts] for spread in spreads]


def test_cells_that_agree_share_one_variance():
    noise = estimate_noise(cells([0.01] * 200))
    assert noise.spread == pytest.approx(0.01, rel=0.1)
    assert noise.of_cell([[1.0, 5.0]])[0] < 1.0, "one odd cell is moderated"


def test_cells_that_differ_keep_more_of_their_own():
    noise = estimate_noise(cells([0.001, 0.1] * 100))
    assert noise.prior_df < 5
    (quiet, _), (loud, _) = (noise.of_cell(one) for one in cells([0.001, 0.1]))
    assert quiet < 1e-3 < loud


def test_what_rounds_share_is_seen_once_a_round():
    alone, shared = estimate_noise(cells([0.01] * 50)), estimate_noise(cells([0.001] * 50, rounds=0.01))
    assert alone.round_share < 0.2 < 0.8 < shared.round_share
    assert shared.of_cell([[0.0]])[1] < 20 < alone.of_cell([[0.0]])[1]


def test_one_process_a_side_says_nothing():
    assert estimate_noise([[[1.0], [2.0]]]) is None
    assert estimate_noise([]) is None


def test_what_never_varied_has_a_spread_all_the_same():
    assert estimate_noise([[[1.0, 1.0], [1.0, 1.0]]] * 4).variance == 1e-8


def test_one_repeated_cell_speaks_for_the_others():
    noise = estimate_noise([[[0.0, 0.02], [0.0]], [[1.0], [1.0]]])
    assert (noise.total_df, math.isinf(noise.prior_df)) == (1.0, True)
    assert noise.of_cell([[1.0], [1.0]]) == (pytest.approx(2e-4), 1.0)


@pytest.mark.parametrize(
    ("spread", "prior_df", "factor"),
    [(math.sqrt(math.pi**2 / 3 - 1), 2.0, 2 / math.e), (math.sqrt(math.pi**2 / 3 - 2), 4.0, 1.0)],
)
def test_how_far_cells_differ_by_hand(spread, prior_df, factor):
    """Four degrees of freedom each: ψ(2) = 1 - γ, ψ'(2) = π²/6 - 1; and those of the prior, where ψ'(d0 / 2) is π²/6
    (d0 = 2, ψ(1) = -γ) and π²/6 - 1 (d0 = 4)."""
    variances = [1e-4 * math.exp(shift) for shift in (-spread, 0.0, spread)]
    noise = estimate_noise([[[5 - math.sqrt(one), 5, 5 + math.sqrt(one)]] * 2 for one in variances])
    assert (noise.prior_df, noise.total_df) == (pytest.approx(prior_df), 12.0)
    assert noise.variance == pytest.approx(1e-4 * factor)


@pytest.mark.parametrize(("pooled", "share"), [(5.0, 0.5), (1.0, 1.0), (20.0, 0.0)])
def test_what_rounds_share_by_hand(pooled, share):
    """Squares of 2 · 1.5² with one degree of freedom and 2 · 2² with two; a third of the noise is the cells' own."""
    both = [[[1.0, 3.0], [10.0, 12.0, 14.0]], [[2.0, 6.0]], [[7.0]]]
    assert _rounds(both, pooled) == (pytest.approx(share), 3.0)


def test_where_nothing_was_measured_twice_no_round_tells_anything():
    assert _rounds([[[1.0], [2.0]], [[3.0]]], 5.0) == (0.0, 0.0)
