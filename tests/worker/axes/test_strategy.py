"""What strategies do with parameters and gradients, and that no way of sharding or mixing changes the loss curve."""

import pytest
import torch

import strategy_job
from benchrunner.worker.axes import peft, strategy
from benchrunner.worker.engines.built import decoder_on_meta
from cells import make_cell
from equivalence import EQUAL, run_job
from ranks import run_ranks

SPREAD = strategy_job.SPREAD
FLOAT32, FLOAT16, BFLOAT16 = "torch.float32", "torch.float16", "torch.bfloat16"


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What each of two ranks saw."""
    return run_ranks(strategy_job.observe, tmp_path_factory.mktemp("ranks"))


# --- gradients -----------------------------------------------------------------------------------------------------


def mean_over_ranks(ranks, *micros):
    """The mean over the ranks of their own gradients, summed over these micro-steps."""
    names = ranks[0]["alone"][0]
    return {name: sum(rank["alone"][micro][name] for rank in ranks for micro in micros) / 2 for name in names}


def assert_same(gradients, expected):
    assert gradients.keys() == expected.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-6, rtol=1e-4, msg=name)


def test_the_ranks_have_gradients_of_their_own(ranks):
    first, second = (rank["alone"][0]["head.weight"] for rank in ranks)
    assert (first - second).norm() > 0.1 * first.norm(), "equal gradients would prove nothing below"


@pytest.mark.parametrize("kind", SPREAD)
def test_a_synchronised_backward_pass_leaves_the_mean_over_the_ranks(ranks, kind):
    for rank in ranks:
        first, both = rank["accumulated"][kind, "always"]
        assert_same(first, mean_over_ranks(ranks, 0))
        assert_same(both, mean_over_ranks(ranks, 0, 1))


@pytest.mark.parametrize("kind", SPREAD)
def test_micro_steps_without_synchronisation_count_when_the_last_one_reduces(ranks, kind):
    for rank in ranks:
        assert_same(rank["accumulated"][kind, "at the end"][1], mean_over_ranks(ranks, 0, 1))


def test_replicas_keep_their_own_gradients_until_they_synchronise(ranks):
    for rank in ranks:
        assert_same(rank["accumulated"]["ddp", "at the end"][0], rank["alone"][0])


@pytest.mark.parametrize("kind", ["fsdp_stage2", "fsdp_stage3"])
def test_shards_have_no_gradient_until_it_is_reduced(ranks, kind):
    for rank in ranks:
        assert set(rank["accumulated"][kind, "at the end"][0].values()) == {None}


@pytest.mark.parametrize(
    ("kind", "accumulation_sync", "every"),
    [
        ("ddp", None, False), ("ddp", "last", False), ("ddp", "every", True),
        ("fsdp_stage3", None, True), ("fsdp_stage3", "last", False), ("fsdp_stage3", "every", True),
    ],
)  # fmt: skip
def test_the_loop_reduces_in_every_micro_step_or_in_the_last(ranks, kind, accumulation_sync, every):
    assert strategy.syncs_every_micro_step(kind.partition("_")[0], accumulation_sync) is every
    (first, at_the_end), (second, _) = (rank["loop"][kind, accumulation_sync] for rank in ranks)
    if every:
        assert torch.equal(first, second)
    else:
        assert first is second is None or not torch.allclose(first, second)
    assert_same(at_the_end, ranks[1]["loop"]["ddp", None][1])


def test_the_mean_over_the_ranks(ranks):
    assert [rank["mean"].tolist() for rank in ranks] == [[1.5, 15.0]] * 2


def test_the_mean_of_one_rank_is_its_own():
    assert strategy.broadcast_free_mean(torch.tensor([2.0]), 1).tolist() == [2.0]


# --- parameters ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "share"), [("ddp", 1), ("fsdp_stage2", 0.5), ("fsdp_stage3", 0.5), ("modules", 0.5)])
def test_what_a_rank_holds_of_every_parameter(ranks, kind, share):
    for rank in ranks:
        assert set(rank["shards"][kind]["held"].values()) == {share}


@pytest.mark.parametrize(("kind", "between"), [("fsdp_stage2", True), ("fsdp_stage3", False), ("modules", False)])
def test_stage_2_keeps_blocks_gathered_from_forward_to_backward_and_stage_3_does_not(ranks, kind, between):
    for rank in ranks:
        at_rest, after_forward, after_backward = rank["shards"][kind]["gathered"]
        assert at_rest == after_backward == set()
        names = {name.partition("blocks.")[2] for name in rank["shards"][kind]["held"] if name.startswith("blocks.")}
        assert after_forward == (names if between else set())


def test_every_block_is_a_unit_or_every_module_with_parameters(ranks):
    assert ranks[0]["shards"]["fsdp_stage3"]["units"] == {"", "blocks.0", "blocks.1"}
    owners = {name.rpartition(".")[0] for name in ranks[0]["shards"]["modules"]["held"]}
    assert ranks[0]["shards"]["modules"]["units"] == {"", *owners}
    assert ranks[0]["shards"]["ddp"]["units"] == set()


def test_replicas_do_not_broadcast_buffers(ranks):
    assert [rank["buffer"] for rank in ranks] == [0.0, 1.0]


# --- number formats ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("case", "stored", "compute", "output", "reduced"),
    [
        (("ddp", "bf16-mixed", None), FLOAT32, FLOAT32, BFLOAT16, FLOAT32),
        (("fsdp_stage2", "fp16-mixed", None), FLOAT32, FLOAT16, FLOAT16, FLOAT32),
        (("fsdp_stage3", "bf16-mixed", None), FLOAT32, BFLOAT16, BFLOAT16, FLOAT32),
        (("fsdp_stage3", "bf16-mixed", "autocast"), FLOAT32, FLOAT32, BFLOAT16, FLOAT32),
        (("fsdp_stage3", "bf16", None), BFLOAT16, BFLOAT16, BFLOAT16, BFLOAT16),
    ],
)
def test_a_policy_casts_what_is_gathered_and_autocast_what_is_computed(ranks, case, stored, compute, output, reduced):
    for rank in ranks:
        assert rank["formats"][case] == {
            "stored": {stored}, "compute": compute, "output": output, "gradient": stored, "reduced": {reduced}
        }  # fmt: skip


# --- units ---------------------------------------------------------------------------------------------------------


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


def test_inner_units_come_before_those_around_them():
    cell = make_cell("model.num_layers=1", "workload=adapter", "workload.adapter_start_layer=0")
    decoder = decoder_on_meta(cell)
    peft.apply(decoder, cell.config.workload, torch.float32)
    names = {module: name for name, module in decoder.named_modules()}
    order = [names[unit] for unit in strategy.units(decoder, "module")]
    nested = [(inner, outer) for inner in order for outer in order if inner.startswith(f"{outer}.")]
    assert nested
    assert all(order.index(inner) < order.index(outer) for inner, outer in nested)


# --- curves --------------------------------------------------------------------------------------------------------


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
