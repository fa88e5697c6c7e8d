"""Samples of drawn lengths: their distribution, their padding, and what each token counts in the loss."""

import json
import os
import subprocess

import pytest
import torch

from benchrunner.core import arithmetic
from benchrunner.core.lengths import ALPACA_LONGEST, sample_indices, sample_length
from benchrunner.worker.engines.engine import build
from benchrunner.worker.model.decoder import IGNORED_TARGET
from benchrunner.worker.steps import data, training_loop
from benchrunner.worker.steps.counts import counts_of_lengths
from benchrunner.worker.workloads import train
from cells import SUPPORT, make_cell, make_context, make_matrix, torchrun

CPU = torch.device("cpu")
JOB = SUPPORT / "equivalence_job.py"
SMALL = ["model.num_layers=2", "model.vocab_size=256", "seq_len=48", "precision=fp32", "global_batch_size=8"]
UNIFORM = [*SMALL, "workload.lengths=uniform", "workload.min_length=3"]
ALPACA = ["workload=lora", "workload.lengths=alpaca", "global_batch_size=64"]
EQUAL = 1e-4


def lengths_of(cell, steps):
    return [sample_length(cell, step, index) for step in steps for index in range(cell.sizes.global_batch_size)]


def test_uniform_lengths_fill_their_range_evenly():
    lengths = torch.tensor(lengths_of(make_cell(*UNIFORM), range(400)))
    counts = torch.bincount(lengths, minlength=49)
    assert counts[:3].sum() == 0 and len(counts) == 49
    expected = len(lengths) / 46
    assert (counts[3:] - expected).abs().max() < 5 * expected**0.5


def test_alpaca_lengths_are_near_110_and_the_longest_comes_first():
    cell = make_cell(*ALPACA, "seq_len=2048")
    lengths = lengths_of(cell, range(60))
    assert lengths[0] == ALPACA_LONGEST == 1304
    rest = torch.tensor(lengths[1:], dtype=torch.float32)
    assert rest.mean() == pytest.approx(110, rel=0.03)
    assert 0.63 < ((rest >= 73) & (rest <= 148)).float().mean() < 0.73
    assert rest.max() < 600
    assert lengths_of(make_cell(*ALPACA, "seq_len=2048", "workload.longest=700"), range(1))[0] == 700
    assert max(lengths_of(make_cell(*ALPACA, "seq_len=100"), range(9))) == 100


def test_a_sample_is_the_same_whatever_the_strategy_the_micro_batch_and_its_length():
    steps = {}
    for strategy, micro in (("single", 2), ("single", 4), ("ddp", 1), ("fsdp_stage3", 4)):
        cell = make_cell(*UNIFORM, f"strategy={strategy}", f"micro_batch_size={micro}")
        ranks = range(cell.sizes.world_size)
        batches = [batch for rank in ranks for batch in data.draw_step(cell, 7, rank, CPU)]
        steps[strategy, micro] = [row[row >= 0].tolist() for batch in batches for row in batch]
    first, *others = steps.values()
    assert len(first) == 8 and all(other == first for other in others)
    assert len({len(row) for row in first}) > 3
    fixed = torch.cat(data.draw_step(make_cell(*SMALL, "micro_batch_size=4"), 7, 0, CPU)).tolist()
    assert all(row == whole[: len(row)] for row, whole in zip(first, fixed, strict=True))


def test_micro_batches_are_padded_to_their_longest_and_padding_counts_nowhere():
    cell = make_cell(*UNIFORM, "micro_batch_size=4")
    for step in range(3):
        for batch, indices in zip(data.draw_step(cell, step, 0, CPU), sample_indices(cell, 0), strict=True):
            lengths = [sample_length(cell, step, index) for index in indices]
            tokens, targets = data.inputs_and_targets(cell, batch)
            assert tokens.shape == targets.shape == (4, max(lengths))
            assert tokens.min() >= 0
            assert (targets != IGNORED_TARGET).sum(1).tolist() == lengths
            for row, length in zip(batch, lengths, strict=True):
                assert (row[: length + 1] >= 0).all() and (row[length + 1 :] == IGNORED_TARGET).all()


def test_samples_of_one_length_are_views_of_the_batch():
    cell = make_cell(*SMALL)
    (batch, *_) = data.draw_step(cell, 0, 0, CPU)
    tokens, targets = data.inputs_and_targets(cell, batch)
    assert tokens.data_ptr() == batch.data_ptr() and targets.data_ptr() == batch[:, 1:].data_ptr()
    assert data.loss_shares(make_cell(*SMALL, "micro_batch_size=8"), 0, 0) == [1.0]


def test_shares_weigh_every_token_alike():
    cell = make_cell(*UNIFORM, "strategy=ddp", "micro_batch_size=2")
    for step in range(3):
        total = sum(lengths_of(cell, [step]))
        for rank in (0, 1):
            for share, indices in zip(data.loss_shares(cell, step, rank), sample_indices(cell, rank), strict=True):
                num_tokens = sum(sample_length(cell, step, index) for index in indices)
                # DDP divides by two ranks, the loss by the tokens of the micro-batch.
                assert share / 2 / num_tokens == pytest.approx(1 / total)


def losses_of(cell, num_steps=4):
    loop = training_loop.TrainingLoop(make_context(cell), build(make_context(cell)))
    loop.prepare(range(num_steps))
    for step in range(num_steps):
        loop.step(step)
    return torch.tensor(loop.mean_losses())


def test_accumulation_weighs_tokens_not_micro_batches():
    curves = [
        losses_of(cell) for cell in make_matrix(*UNIFORM, "micro_batch_size=1,2,8", "optimizer=sgd", "optimizer.lr=0.5")
    ]
    assert curves[0].std() > 10 * EQUAL
    torch.testing.assert_close(curves[0], curves[1], atol=EQUAL, rtol=0)
    torch.testing.assert_close(curves[0], curves[2], atol=EQUAL, rtol=0)


def test_loss_chunks_change_nothing_but_memory():
    whole, chunked = (
        losses_of(cell) for cell in make_matrix(*UNIFORM, "micro_batch_size=4", "workload.loss_chunk_tokens=null,16")
    )
    torch.testing.assert_close(whole, chunked, atol=EQUAL, rtol=0)


def test_every_strategy_weighs_tokens_alike(tmp_path):
    """SGD, because Adam would hide a gradient of the wrong scale."""
    out = tmp_path / "out.json"
    words = [*UNIFORM, "strategy=single,ddp,fsdp_stage3", "micro_batch_size=2", "optimizer=sgd", "optimizer.lr=0.5"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    job = subprocess.run(torchrun(JOB, str(out), *words), env=environment, capture_output=True, text=True)
    assert job.returncode == 0, job.stderr[-3000:]
    curves = [torch.tensor(result["losses"]) for result in json.loads(out.read_text())]
    assert len(curves) == 3 and curves[0].std() > 10 * EQUAL
    for curve in curves[1:]:
        torch.testing.assert_close(curve, curves[0], atol=EQUAL, rtol=0)


def test_the_result_tells_real_tokens_from_padding_and_its_work_is_checked():
    cell = make_cell(*UNIFORM, "micro_batch_size=4", "measure.steps=5", "measure.warmup_steps=2")
    result = train.run(make_context(cell))
    real = lengths_of(cell, range(2, 7))
    assert result["tokens_per_step"] == sum(real) / 5
    groups = [real[start : start + 4] for start in range(0, len(real), 4)]
    assert result["padded_tokens_per_step"] == sum(4 * max(group) for group in groups) / 5
    assert result["checks"]["work"]["ok"], result["checks"]["work"]


def test_flops_are_those_of_the_samples_as_drawn():
    cell = make_cell(*UNIFORM, "micro_batch_size=1")
    flops = counts_of_lengths(cell, range(4))["flops"]
    lengths = lengths_of(cell, range(4))
    a_token = [arithmetic.train_flops_per_token(cell.config.model, length) for length in lengths]
    expected = sum(length * flops for length, flops in zip(lengths, a_token, strict=True)) / 4
    assert flops["model_per_step"] == pytest.approx(expected) == pytest.approx(flops["hardware_per_step"])
    padded = counts_of_lengths(make_cell(*UNIFORM, "micro_batch_size=8"), range(4))["flops"]
    assert padded["model_per_step"] == pytest.approx(expected) and padded["hardware_per_step"] > 1.2 * expected
    assert counts_of_lengths(make_cell(*SMALL), range(4)) == {}


@pytest.mark.slow
@pytest.mark.parametrize("dynamic", ["true", "null"])
def test_dynamic_shapes_compile_once_or_twice_and_compute_the_same(dynamic):
    words = [*UNIFORM, "micro_batch_size=4", "measure.steps=6", "measure.warmup_steps=4"]
    eager = train.run(make_context(make_cell(*words)))
    compiled = train.run(make_context(make_cell(*words, "compile=inductor", f"compile.dynamic={dynamic}")))
    torch.testing.assert_close(torch.tensor(compiled["losses"]), torch.tensor(eager["losses"]), atol=EQUAL, rtol=0)
    assert compiled["compile"]["num_graphs"] <= 8
    assert compiled["compile"]["num_graph_breaks"] == 0
