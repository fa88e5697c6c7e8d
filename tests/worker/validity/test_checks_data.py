"""Two kinds of steps are found by their rule, and noise has none."""

import random

import pytest
import torch

from benchrunner.core.lengths import count_lengths
from benchrunner.worker.steps import data
from benchrunner.worker.validity import expected_data
from benchrunner.worker.validity.checks_data import MIN_STEPS, fills, fingerprints, kinds_by_rule, period_of, two_kinds
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


@pytest.mark.parametrize("period", [2, 3, 4])
def test_a_rule_is_seen_through_what_a_busy_machine_adds(period):
    fast, slow = [1.0, 5.0, 1.2, 0.9, 7.0, 3.0, 2.0, 1.1], [9.0, 20.0, 14.0, 17.5, 11.0, 12.5, 30.0]
    times = [slow[step % 7] if step % period else fast[step // period % 8] for step in range(STEPS)]
    assert two_kinds(times) is None
    kinds = kinds_by_rule(times)
    assert kinds and period_of([time in kinds[0] for time in times]) == period
    assert kinds_by_rule(times[::-1]) and kinds_by_rule(times[:MIN_STEPS]) is None, "few steps are so by chance"


def test_times_that_lie_anywhere_follow_no_rule():
    generator = random.Random(0)
    windows = [[generator.lognormvariate(0, 1.2) for _ in range(STEPS)] for _ in range(2000)]
    assert sum(kinds_by_rule(times) is not None for times in windows) <= 4


def test_a_busy_neighbour_has_no_period():
    pattern = [False] * 7 + [True] * 5 + [False] * 2 + [True] * 3 + [False] * 3
    assert len(pattern) >= MIN_STEPS and period_of(pattern) is None


def test_the_same_tokens_in_another_order_are_another_batch():
    tokens = torch.arange(8).reshape(2, 4)
    prints = fingerprints([tokens, tokens.clone(), tokens.flip(0), tokens.flip(1)])
    assert prints[0] == prints[1] and len(set(prints)) == 3


@pytest.mark.parametrize(
    ("steps_s", "window_s", "right"),
    [(20, 21, True), (0.01, 0.2, True), (0.4, 0.8, False), (10, 20, False), (20, 10, False)],
)
def test_steps_fill_the_window_by_another_clock(steps_s, window_s, right):
    assert fills(steps_s, window_s) is right


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
