"""All strategies, checkpointing modes and compilers compute the same thing, and the loop counts what it does."""

import json

import pytest
import torch

from benchrunner.worker.steps import data
from benchrunner.worker.workloads import train
from cells import make_cell, make_context, make_matrix
from equivalence import EQUAL, SMALL, run_job

AXES = ["strategy=single,ddp,fsdp_stage2,fsdp_stage3", "activation_checkpointing=none,full,selective"]


@pytest.fixture(scope="module")
def combinations(tmp_path_factory):
    """One process group of two ranks runs them all; `single` runs on each rank by itself."""
    return run_job([*AXES, "micro_batch_size=2"], tmp_path_factory)


def test_every_combination_starts_from_bit_identical_weights(combinations):
    assert len(combinations) == 12
    assert len({result["weights"] for result in combinations}) == 1


@pytest.mark.slow
def test_every_compiled_combination_has_the_same_weights_and_loss_curve(combinations, tmp_path_factory):
    compiled = run_job([*AXES, "compile=inductor", "micro_batch_size=2"], tmp_path_factory)
    assert len(compiled) == 12 and {result["weights"] for result in compiled} == {combinations[0]["weights"]}
    reference = torch.tensor(combinations[0]["losses"])
    for result in compiled:
        torch.testing.assert_close(torch.tensor(result["losses"]), reference, atol=EQUAL, rtol=0, msg=str(result))


def test_every_combination_has_the_same_loss_curve(combinations):
    reference = torch.tensor(combinations[0]["losses"])
    assert reference.std() > 10 * EQUAL, "a flat curve would prove nothing"
    for result in combinations:
        torch.testing.assert_close(torch.tensor(result["losses"]), reference, atol=EQUAL, rtol=0, msg=str(result))


@pytest.mark.slow
def test_whole_model_compile_has_the_same_loss_curve(combinations, tmp_path_factory):
    words = ["strategy=single,ddp,fsdp_stage3", "compile=inductor", "compile.scope=model", "micro_batch_size=2"]
    for result in run_job(words, tmp_path_factory):
        reference = torch.tensor(combinations[0]["losses"])
        torch.testing.assert_close(torch.tensor(result["losses"]), reference, atol=EQUAL, rtol=0, msg=str(result))


def test_accumulation_changes_nothing_but_the_rounding():
    curves = []
    for cell in make_matrix(*SMALL, "micro_batch_size=1,2,8", "measure.steps=3", "measure.warmup_steps=1"):
        curves.append(torch.tensor(train.run(make_context(cell))["losses"]))
    torch.testing.assert_close(curves[0], curves[1], atol=EQUAL, rtol=0)
    torch.testing.assert_close(curves[0], curves[2], atol=EQUAL, rtol=0)


def test_the_first_loss_is_that_of_normal_logits():
    cell = make_cell(*SMALL, "measure.steps=1", "measure.warmup_steps=0")
    (loss,) = train.run(make_context(cell))["losses"]
    width, std, vocabulary = cell.config.model.d_model, cell.config.model.init_std, cell.config.model.vocab_size
    expected = torch.log(torch.tensor(float(vocabulary))) + width * std**2 / 2
    assert loss == pytest.approx(expected.item(), abs=0.05)


def test_result_has_one_sample_a_step_and_what_was_processed():
    cell = make_cell(*SMALL, "measure.steps=4", "measure.warmup_steps=2", "micro_batch_size=4")
    result = train.run(make_context(cell))
    assert len(result["step_times_s"]) == 4 and min(result["step_times_s"]) > 0
    assert len(result["losses"]) == 6
    assert result["tokens_per_step"] == 8 * 32
    assert result["num_parameters"] == result["num_trainable_parameters"]
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_clipping_bounds_the_update():
    losses = {}
    words = [
        "optimizer=sgd",
        "optimizer.weight_decay=0",
        "optimizer.lr=5",
        "measure.steps=3",
        "measure.warmup_steps=1",
        "optimizer.clip_norm=1e-6,null",
    ]
    for cell in make_matrix(*SMALL, *words):
        losses[cell.config.optimizer.clip_norm] = train.run(make_context(cell))["losses"]
    clipped, free = (torch.tensor(losses[key]) for key in (1e-6, None))
    assert (free - clipped).abs().max() > 0.1
    assert (clipped - clipped[0]).abs().max() < 0.05


def test_a_loss_that_is_not_finite_is_an_error():
    cell = make_cell(*SMALL, "optimizer=sgd", "optimizer.lr=1e30", "measure.steps=6")
    with pytest.raises(FloatingPointError, match="loss of step"):
        train.run(make_context(cell))


def test_samples_do_not_depend_on_strategy_or_rank():
    whole = torch.cat(data.draw_step(make_cell(*SMALL, "micro_batch_size=2"), 3, 0, torch.device("cpu")))
    cell = make_cell(*SMALL, "strategy=ddp", "devices=2", "micro_batch_size=2")
    halves = [torch.cat(data.draw_step(cell, 3, rank, torch.device("cpu"))) for rank in (0, 1)]
    assert torch.equal(torch.cat(halves), whole)
    assert not torch.equal(
        whole, torch.cat(data.draw_step(make_cell(*SMALL, "micro_batch_size=2"), 4, 0, whole.device))
    )
