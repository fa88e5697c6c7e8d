"""The spread of a process is pooled over cells as far as they agree about it."""

import math
import random

import pytest

from benchrunner.compare.noise import estimate_noise

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
