"""Lengths that differ: the prediction is of the micro-batches that the run draws."""

import pytest

from benchrunner.core.lengths import count_lengths, padded_lengths
from benchrunner.plan import micro_batches
from benchrunner.plan.memory import peak_memory
from benchrunner.plan.predict import predict
from samples import H200, make_cell

UNIFORM = {"workload.lengths": "uniform", "workload.min_length": 28, "global_batch_size": 8, "micro_batch_size": 2}
ALPACA = {"workload.lengths": "alpaca", "workload.longest": 300, "seq_len": 1000, "model.max_seq_len": 1000}


@pytest.fixture(autouse=True)
def _nothing_kept(monkeypatch):
    """No test is answered by what another one has drawn."""
    monkeypatch.setattr(micro_batches, "_KEPT", {})


def test_samples_of_one_length_are_what_they_are():
    cell = make_cell(leaves={"global_batch_size": 4})
    assert micro_batches.longest_sizes(cell) == micro_batches.typical_sizes(cell) == cell.sizes
    assert micro_batches.typical_lengths(cell) == ((cell.sizes.seq_len, 4),)
    for leaves in ({}, ALPACA):
        undivided = make_cell(leaves={**leaves, "global_batch_size": 7, "micro_batch_size": 2})
        assert micro_batches.longest_sizes(undivided) == micro_batches.typical_sizes(undivided) == undivided.sizes


def test_the_longest_micro_batch_is_one_that_is_drawn():
    cell = make_cell(leaves=UNIFORM)
    measure = cell.config.measure
    _, padded = count_lengths(cell, range(measure.warmup_steps + measure.steps))
    assert micro_batches.longest_sizes(cell).seq_len == max(padded)
    assert micro_batches.longest_sizes(make_cell(leaves=ALPACA)).seq_len == 300


def test_of_more_samples_than_are_drawn_the_longest_that_may_be_is_assumed():
    many = {"measure.steps": 2000, "seq_len": 100_000, "model.max_seq_len": 100_000}
    assert micro_batches.longest_sizes(make_cell(leaves=UNIFORM | many)).seq_len == 100_000
    assert micro_batches.longest_sizes(make_cell(leaves=ALPACA | {"measure.steps": 9000})).seq_len == 300


def test_a_typical_step_is_one_of_the_window():
    cell = make_cell(leaves=UNIFORM)
    first, steps = cell.config.measure.warmup_steps, cell.config.measure.steps
    totals = sorted(sum(padded_lengths(cell, step, 0)) for step in range(first, first + min(steps, 9)))
    found = micro_batches.typical_lengths(cell)
    assert sum(length * count for length, count in found) == pytest.approx(totals[len(totals) // 2])
    assert sum(count for _, count in found) == cell.sizes.accumulation_steps == 4
    assert micro_batches.typical_sizes(cell).seq_len == round(totals[len(totals) // 2] / 4)
    assert micro_batches.typical_lengths(make_cell(leaves=UNIFORM | {"seed": 5})) != found


def test_many_micro_batches_are_grouped_by_length_and_a_rank_has_the_slowest():
    cell = make_cell(visible_devices=2, strategy="ddp", leaves={**UNIFORM, "global_batch_size": 128})
    found = micro_batches.typical_lengths(cell)
    assert len(found) == micro_batches.NUM_GROUPS and list(found) == sorted(found)
    first, steps = cell.config.measure.warmup_steps, cell.config.measure.steps
    slowest = sorted(
        max(sum(padded_lengths(cell, step, rank)) for rank in range(2)) for step in range(first, first + min(steps, 9))
    )
    assert sum(length * count for length, count in found) == pytest.approx(slowest[len(slowest) // 2])
    assert micro_batches.typical_sizes(cell).seq_len == round(slowest[len(slowest) // 2] / 32)


def test_memory_follows_the_longest_sample_and_time_all_of_them():
    """A limit of 1,000 tokens that no sample reaches costs nothing."""
    alpaca, as_long = make_cell(leaves=ALPACA), make_cell(leaves={**ALPACA, "seq_len": 300})
    fixed = make_cell(leaves={"seq_len": 300, "model.max_seq_len": 1000})
    assert peak_memory(alpaca) == peak_memory(as_long) == peak_memory(fixed)
    predicted = predict(alpaca, H200)
    assert predicted["peak_memory_bytes"] == peak_memory(fixed).total_bytes
    assert predicted["tokens_per_second_per_device"] * predicted["step_time_s"] < 300
