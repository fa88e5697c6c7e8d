"""What parity keeps of a cell and what it makes small."""

import pytest

from benchrunner.core import arithmetic
from benchrunner.core.parity_cell import reference, small_model, small_scale
from benchrunner.core.schema import CheckpointingConfig
from decoders import load_model
from samples import make_cell

KEPT = ("strategy", "precision", "compile", "activation_checkpointing", "engine")


def test_what_chooses_code_is_kept():
    axes = {"strategy": "fsdp_stage2", "precision": "fp8", "compile": "inductor", "activation_checkpointing": "full"}
    cell = make_cell(leaves={"attention": "flash", "compile.mode": "max-autotune"}, workload="parity", **axes)
    small = small_scale(cell)
    assert {axis: small.axes[axis] for axis in KEPT} == {axis: cell.axes[axis] for axis in KEPT}
    assert all(getattr(small.config, axis) == getattr(cell.config, axis) for axis in KEPT)
    assert small.config.attention == "flash" and small.sizes.world_size == cell.sizes.world_size
    assert small.axes["optimizer"] == small.config.optimizer.name == "sgd"
    assert small.config.optimizer.clip_norm is None and small.config.optimizer.weight_decay == 0


def test_accumulation_is_kept_but_short():
    for steps, kept in ((1, 1), (2, 2), (16, 2)):
        small = small_scale(make_cell(leaves={"global_batch_size": 2 * steps}, strategy="ddp", workload="parity"))
        assert small.sizes.accumulation_steps == kept


@pytest.mark.parametrize("name", ["gpt2-1.5b", "llama2-70b", "phi-1.5", "stablelm-3b", "falcon-7b", "llama3-8b"])
def test_a_small_model_is_of_the_same_family(name):
    model = load_model(name)
    small = small_model(model, CheckpointingConfig(name="none"))
    same = ("norm", "mlp", "positions", "rotary_fraction", "bias", "head_bias", "parallel_residual", "shared_norm",
            "tie_embeddings")  # fmt: skip
    assert {key: getattr(small, key) for key in same} == {key: getattr(model, key) for key in same}
    assert (small.num_heads == small.num_kv_heads) == (model.num_heads == model.num_kv_heads)
    assert (small.num_kv_heads == 1) == (model.num_kv_heads == 1)
    assert small.dropout == 0 and arithmetic.num_parameters(small) < 1e6


def test_a_fraction_of_the_blocks_stays_a_fraction():
    for every, layers in ((None, 2), ("per_op", 2), ("1/2", 2), ("1/4", 4), ("1/12", 4)):
        assert (
            small_model(load_model("llama2-7b"), CheckpointingConfig(name="selective", every=every)).num_layers
            == layers
        )


def test_packed_bases_train_an_adapter():
    cell = make_cell(leaves={"precision.backend": "bitsandbytes"}, precision="nf4", workload="parity")
    assert small_scale(cell).config.workload.name == small_scale(cell).axes["workload"] == "lora"


def test_the_reference_is_fp32_eager_on_one_device_with_the_whole_batch():
    small = small_scale(
        make_cell(
            leaves={"global_batch_size": 16, "attention": "flash"},
            strategy="fsdp_stage3",
            precision="bf16-mixed",
            compile="inductor",
            activation_checkpointing="full",
            workload="parity",
        )
    )
    plain = reference(small)
    assert {axis: plain.axes[axis] for axis in KEPT} == {
        "strategy": "single", "precision": "fp32", "compile": "eager", "activation_checkpointing": "none",
        "engine": "native",
    }  # fmt: skip
    assert plain.config.model == small.config.model and plain.config.optimizer == small.config.optimizer
    assert plain.sizes.world_size == 1 and plain.sizes.accumulation_steps == 1
    assert plain.sizes.global_batch_size == small.sizes.global_batch_size
    assert plain.config.precision.compute_dtype == plain.config.precision.param_dtype == "float32"
    assert plain.config.attention == "math"
