"""What parity keeps of a cell and what it makes small."""

import pytest

from benchrunner.core import arithmetic
from benchrunner.core.parity_cell import (
    D_FF,
    HEAD_SIZE,
    INIT_STD,
    LEARNING_RATE,
    NUM_HEADS,
    SEQ_LEN,
    VOCAB_SIZE,
    reference,
    small_model,
    small_scale,
)
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


def test_what_the_small_cell_trains_with_is_its_own():
    """Nothing that hides a scale: no dropout, decay, clipping or padding; the rate of `LEARNING_RATE`."""
    changed = {"workload.lengths": "uniform", "workload.lora_dropout": 0.5, "model.dropout": 0.1, "devices": 3}
    cell = make_cell(leaves=changed, strategy="ddp", workload="parity")
    small = small_scale(cell)
    assert small.axes["workload"] == small.config.workload.name == "train"
    assert (small.config.workload.lengths, small.config.workload.lora_dropout) == ("fixed", 0.0)
    assert (small.config.optimizer.lr, small.config.optimizer.weight_decay) == (LEARNING_RATE, 0.0)
    assert small.config.optimizer.clip_norm is None and small.config.model.dropout == 0.0
    assert small.config.model.init_std == INIT_STD and small.config.model.num_parameters is None
    assert (small.config.seq_len, small.config.model.max_seq_len) == (SEQ_LEN, SEQ_LEN)
    assert small.config.devices == small.sizes.devices == 3


def test_a_loss_in_chunks_stays_one():
    for chunk, kept in ((None, None), (4096, SEQ_LEN // 2)):
        cell = make_cell(leaves={"workload.loss_chunk_tokens": chunk}, workload="parity")
        assert small_scale(cell).config.workload.loss_chunk_tokens == kept
        assert reference(small_scale(cell)).config.workload.loss_chunk_tokens is None


def test_the_shape_of_a_small_model_is_whole_numbers():
    small = small_model(load_model("llama3-8b"), CheckpointingConfig(name="none"))
    shape = (small.num_layers, small.d_model, small.num_heads, small.num_kv_heads, small.d_ff, small.vocab_size)
    assert shape == (2, NUM_HEADS * HEAD_SIZE, NUM_HEADS, NUM_HEADS // 2, D_FF, VOCAB_SIZE)
    assert all(type(size) is int for size in shape)


def test_the_reference_is_built_by_nothing_that_the_cell_chose():
    leaves = {
        "compile.scope": "model",
        "compile.mode": "max-autotune",
        "nodes": 2,
        "devices": 2,
        "engine.name": "fabric",
    }
    small = small_scale(make_cell(leaves=leaves, strategy="ddp", compile="inductor", workload="parity"))
    plain = reference(small).config
    assert (plain.strategy.kind, plain.strategy.name) == ("single", "single")
    assert (plain.compile.mode, plain.compile.scope) == (None, "block")
    assert (plain.devices, plain.nodes, plain.engine.name) == (1, 1, "native")
    assert reference(small).sizes.devices == 1 and reference(small).sizes.nodes == 1


@pytest.mark.parametrize(
    ("backend", "scope", "is_tied"),
    [("bitsandbytes", "all", False), ("bitsandbytes", "blocks", True), ("torch", "all", True)],
)
def test_a_head_that_is_packed_is_tied_no_more(backend, scope, is_tied):
    leaves = {"precision.backend": backend, "precision.scope": scope, "model.tie_embeddings": True}
    small = small_scale(make_cell(leaves=leaves, model="gpt2-125m", workload="parity"))
    assert reference(small).config.model.tie_embeddings is is_tied
