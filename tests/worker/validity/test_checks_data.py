"""Two kinds of steps are found by their rule, and noise has none."""

import random

import pytest
import torch

from benchrunner.worker.validity.checks_data import MIN_STEPS, fingerprints, period_of, two_kinds

STEPS = 20


def noisy(times, spread=0.05):
    generator = random.Random(0)
    return [time * (1 + spread * generator.random()) for time in times]


@pytest.mark.parametrize("pattern", [(1.0, 2.0), (1.0, 3.0, 3.0), (2.0, 2.0, 2.0, 1.0)])
def test_steps_that_leave_work_out_by_a_rule_are_two_kinds(pattern):
    times = noisy(pattern[step % len(pattern)] for step in range(STEPS))
    fast, slow = two_kinds(times)
    assert max(fast) < 1.1 and min(slow) > 1.9
    assert period_of([time in fast for time in times]) == len(pattern)


@pytest.mark.parametrize(
    "times",
    [
        noisy([1.0] * STEPS),
        noisy([1.0] * STEPS, spread=1.0),
        [1.0] * (STEPS - 1) + [5.0],
        noisy([1.0] * 10 + [1.3] * 10),
        [1.0 + step / STEPS for step in range(STEPS)],
    ],
    ids=["even", "wide", "one slow step", "another clock", "a trend"],
)
def test_a_healthy_window_is_of_one_kind(times):
    assert two_kinds(times) is None


def test_a_busy_neighbour_has_no_period():
    pattern = [False] * 7 + [True] * 5 + [False] * 2 + [True] * 3 + [False] * 3
    assert len(pattern) >= MIN_STEPS and period_of(pattern) is None


def test_the_same_tokens_in_another_order_are_another_batch():
    tokens = torch.arange(8).reshape(2, 4)
    prints = fingerprints([tokens, tokens.clone(), tokens.flip(0), tokens.flip(1)])
    assert prints[0] == prints[1] and len(set(prints)) == 3
