"""Two kinds of steps are found by their rule, and noise has none."""

import random

import pytest
import torch

from benchrunner.core.lengths import count_lengths
from benchrunner.worker.steps import data
from benchrunner.worker.validity import expected_data
from benchrunner.worker.validity.checks_data import MIN_STEPS, fills, fingerprints, period_of, two_kinds
from cells import make_cell

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


@pytest.mark.parametrize(
    ("steps_s", "wall_s", "right"), [(20, 21, True), (0.01, 4, True), (10, 20, False), (20, 10, False)]
)
def test_steps_fill_the_window_by_another_clock(steps_s, wall_s, right):
    assert fills(steps_s, wall_s) is right


@pytest.mark.parametrize("lengths", ["fixed", "uniform", "alpaca"])
def test_the_seed_means_what_is_drawn(lengths):
    words = ["micro_batch_size=3", "global_batch_size=12", "seq_len=128", "strategy=ddp", "devices=2", "seed=7"]
    cell = make_cell(f"workload.lengths={lengths}", "model.vocab_size=300", *words)
    for rank in range(2):
        meant = list(expected_data.micro_batches(cell, rank, range(3)))
        drawn = [batch for step in range(3) for batch in data.draw_step(cell, step, rank, torch.device("cpu"))]
        assert len(meant) == len(drawn) == 6
        for (tokens, targets), batch in zip(meant, drawn, strict=True):
            theirs = data.inputs_and_targets(cell, batch)
            assert torch.equal(tokens, theirs[0]) and torch.equal(targets, theirs[1])
    real, padded = count_lengths(cell, range(3))
    assert expected_data.count_tokens(cell, range(3)) == (sum(real.elements()), sum(padded.elements()))


def test_prompts_are_those_of_the_seed():
    cell = make_cell("workload=generate", "micro_batch_size=3", "generate.prompt_length=9")
    drawn = [data.draw_prompts(cell, sample, 0, torch.device("cpu")) for sample in range(2)]
    assert all(torch.equal(*pair) for pair in zip(expected_data.prompts(cell, 0, range(2)), drawn, strict=True))


def test_other_targets_are_another_batch():
    tokens = torch.arange(8).reshape(2, 4)
    assert fingerprints([tokens], [tokens]) != fingerprints([tokens], [tokens + 1]) != fingerprints([tokens])
