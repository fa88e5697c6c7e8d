"""Which modules are gathered together, and that no way of sharding or mixing changes the loss curve."""

import pytest
import torch

from benchrunner.worker.axes import strategy
from benchrunner.worker.engines.built import decoder_on_meta
from cells import make_cell
from equivalence import EQUAL, run_job


def unit_names(*words, granularity):
    decoder = decoder_on_meta(make_cell("model.num_layers=1", *words))
    names = {module: name for name, module in decoder.named_modules()}
    return [names[unit] for unit in strategy.units(decoder, granularity)]


def test_units_of_blocks():
    assert unit_names("model.num_layers=3", granularity="block") == ["blocks.0", "blocks.1", "blocks.2"]


def test_units_of_modules_cover_every_parameter_once():
    names = unit_names(granularity="module")
    decoder = decoder_on_meta(make_cell("model.num_layers=1"))
    owners = [name.rpartition(".")[0] for name, _ in decoder.named_parameters()]
    assert sorted(names) == sorted(set(owners))


def test_a_tied_matrix_stays_with_the_root():
    names = unit_names("model.tie_embeddings=true", granularity="module")
    assert "head" not in names and "embedding" not in names and "norm" in names


def assert_equal_curves(words, tolerance, tmp_path_factory):
    """All combinations follow the first one."""
    first, *others = run_job([*words, "micro_batch_size=2"], tmp_path_factory)
    for result in others:
        torch.testing.assert_close(
            torch.tensor(result["losses"]), torch.tensor(first["losses"]), atol=tolerance, rtol=0, msg=str(result)
        )
    return [first, *others]


@pytest.mark.slow
@pytest.mark.parametrize("tied", ["false", "true"])
def test_units_of_modules_have_the_same_loss_curve(tied, tmp_path_factory):
    words = [f"model.tie_embeddings={tied}", "strategy=ddp,fsdp_stage2,fsdp_stage3", "strategy.wrap=module"]
    assert len(assert_equal_curves([*words, "activation_checkpointing=none,full"], EQUAL, tmp_path_factory)) == 6


@pytest.mark.slow
def test_per_operation_has_the_same_loss_curve_under_every_strategy(tmp_path_factory):
    words = ["strategy=ddp,fsdp_stage2,fsdp_stage3", "activation_checkpointing.every=per_op"]
    assert_equal_curves([*words, "activation_checkpointing=none,selective"], EQUAL, tmp_path_factory)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16-mixed", "fp16-mixed"])
def test_mixing_by_autocast_is_the_same_under_ddp_and_fsdp(precision, tmp_path_factory):
    words = [f"precision={precision}", "strategy=ddp,fsdp_stage2,fsdp_stage3", "strategy.mixed_precision_by=autocast"]
    assert_equal_curves(words, EQUAL, tmp_path_factory)


@pytest.mark.slow
def test_other_formats_follow_fp32_under_every_strategy(tmp_path_factory):
    words = ["precision=fp32,bf16-mixed,fp16-mixed,fp8-torchao", "strategy=ddp,fsdp_stage2,fsdp_stage3"]
    assert_equal_curves(words, 5e-3, tmp_path_factory)
