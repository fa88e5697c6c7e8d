"""What a block keeps for its backward pass, counted by hand: tensors of the model's, the MLP's and the keys' width."""

import pytest

from benchrunner.plan.kept import Model
from samples import make_cell

D, F, KV, HEADS, RANK, TOKENS = 512, 1408, 128, 8, 4, 2 * 256
SHAPE = {
    "model.num_layers": 4, "model.d_model": D, "model.d_ff": F, "model.num_heads": HEADS, "model.num_kv_heads": 2,
    "model.max_seq_len": 256, "seq_len": 256, "micro_batch_size": 2,
}  # fmt: skip
GPT2 = {"model.norm": "layernorm", "model.mlp": "gelu", "model.positions": "learned"}
PARALLEL = {"model.norm": "layernorm", "model.mlp": "gelu", "model.parallel_residual": True}
PHI = PARALLEL | {"model.shared_norm": True}
FROM_0 = {"workload.adapter_start_layer": 0}


def make_model(leaves=None, on_cpu=False, devices=1, **axes):
    cell = make_cell(visible_devices=devices, leaves=SHAPE | (leaves or {}), **axes)
    return Model(cell.config, cell.sizes, on_cpu=on_cpu)


def a_token(num_bytes):
    """Of a token, without attention's logarithms of sums: a float a head."""
    return num_bytes / TOKENS - 4 * HEADS


@pytest.mark.parametrize(
    ("leaves", "axes", "elements"),
    [
        # Residual stream and result of both norms; q, k, v; q, k rotated; attention's result; gate, up, silu, product.
        ({}, {}, 4 * D + (D + 2 * KV) + (D + KV) + D + 4 * F),
        ({}, {"compile": "inductor"}, 4 * D + (D + 2 * KV) + (D + KV) + D + 3 * F),
        (GPT2, {}, 4 * D + (D + 2 * KV) + D + 2 * F),
        (PARALLEL, {}, 3 * D + (D + 2 * KV) + (D + KV) + D + 2 * F),
        (PHI, {}, 2 * D + (D + 2 * KV) + (D + KV) + D + 2 * F),
        # Frozen linears keep no input. LoRA: what is dropped out of its input, and two products of its rank.
        ({"workload.lora_dropout": 0.0}, {"workload": "lora"},
         2 * D + (D + 2 * KV) + (D + KV) + D + 3 * F + D + 2 * RANK),
        ({}, {"workload": "lora", "compile": "inductor"}, 2 * D + (D + 2 * KV) + (D + KV) + D + 2 * F),
        (FROM_0, {"workload": "adapter"}, 2 * D + (D + 2 * KV) + (D + KV) + D + 3 * F + D),
        # Adapter v2: the result of each linear before its scale.
        (FROM_0, {"workload": "adapter_v2"},
         2 * D + (D + 2 * KV) + (D + KV) + D + 3 * F + (D + 2 * KV) + D + 2 * F + D + D),
        (FROM_0, {"workload": "adapter_v2", "compile": "inductor"},
         2 * D + (D + 2 * KV) + (D + KV) + D + 2 * F + 2 * KV + 2 * F + D),
        (FROM_0 | GPT2, {"workload": "adapter_v2"}, 2 * D + (D + 2 * KV) + D + F + (D + 2 * KV) + D + F + D + D),
    ],
)  # fmt: skip
def test_tensors_of_a_block(leaves, axes, elements):
    model = make_model({"workload.lora_rank": RANK} | leaves, precision="bf16", **axes)
    assert a_token(model.block.saved) == 2 * elements
    assert a_token(model.kept(1)) == 2 * elements


@pytest.mark.parametrize(
    ("leaves", "axes", "elements"),
    [
        ({"workload.lora_dropout": 0.0}, {"workload": "lora"}, D),  # its input
        (PHI | {"workload.lora_dropout": 0.0}, {"workload": "lora"}, D + F),  # and the MLP beside the attention
        ({}, {"workload": "lora"}, D + D / 2),  # and the mask, a byte an element
        ({}, {"workload": "lora", "compile": "inductor"}, 0),
        # Of its attention an adapter needs the rotated queries and what the gate multiplies.
        (FROM_0, {"workload": "adapter"}, D + 2 * D + 3 * KV),
        (FROM_0, {"workload": "adapter", "compile": "inductor"}, D + 2 * KV),
        ({}, {"workload": "train"}, 0),
    ],
)
def test_what_the_first_block_spares_since_nothing_trains_before_it(leaves, axes, elements):
    model = make_model(leaves, precision="bf16", **axes)
    assert (model.kept(1) - model.kept(0)) / TOKENS == 2 * elements


def test_below_its_first_prompt_an_adapter_keeps_nothing():
    model = make_model({"workload.adapter_start_layer": 2}, workload="adapter", precision="bf16")
    assert [model.kept(index) for index in (0, 1)] == [0, 0]
    assert 0 < model.kept(2) < model.kept(3) == model.block.saved


@pytest.mark.parametrize(
    ("change", "axes", "num_bytes"),
    [
        ({"model.dropout": 0.1}, {}, 2 * D),  # a mask after attention and MLP
        ({"model.dropout": 0.1}, {"compile": "inductor"}, 0),
        ({"workload.lora_dropout": 0.1}, {"workload": "lora"}, D),
        ({"attention": "explicit"}, {}, 2 * HEADS * 256),  # the weights of all tokens of the sequence
        ({"attention": "math"}, {}, 4 * HEADS * 256),
    ],
)
def test_what_an_option_keeps_more(change, axes, num_bytes):
    before = {"model.dropout": 0.0, "workload.lora_dropout": 0.0, "attention": "auto"}
    without, with_it = (make_model(leaves, precision="bf16", **axes) for leaves in (before, before | change))
    assert (with_it.block.saved - without.block.saved) / TOKENS == num_bytes


def test_dropout_keeps_what_it_leaves_of_weights_that_are_written_out():
    plain, dropped = (
        make_model({"attention": "explicit", "model.dropout": dropout}, precision="bf16") for dropout in (0.0, 0.1)
    )
    assert (dropped.block.saved - plain.block.saved) / TOKENS == 2 * D + (2 + 1) * HEADS * 256


@pytest.mark.parametrize(("leaves", "products"), [({}, 2 * F), (GPT2, F)])
def test_of_a_block_that_keeps_its_products_these_and_its_input_are_there(leaves, products):
    leaves = {"activation_checkpointing.every": "per_op"} | leaves
    model = make_model(leaves, precision="bf16", activation_checkpointing="selective")
    assert model.kept(0) == 2 * TOKENS * (D + (D + 2 * KV) + D + products + D)


def test_transformer_engine_keeps_inputs_in_8_bits_and_copies_of_weights_in_16():
    model = make_model(precision="fp8")
    in_16_bits, in_8_bits = 2 * D + (D + 2 * KV) + (D + KV) + D + 3 * F, 2 * D + D + F
    assert a_token(model.block.saved) == 2 * in_16_bits + in_8_bits
    weights = D * (D + 2 * KV) + D * D + 3 * D * F
    assert model.kept(0) == model.block.saved + 2 * weights


@pytest.mark.parametrize(
    ("leaves", "axes", "num_bytes"),
    [
        ({}, {}, 4 + 4 - 2),  # input and result before the scale in float32, in place of the input in bf16
        ({}, {"precision": "bf16-mixed"}, 4 + 4 - 4),
        ({}, {"workload": "lora"}, 4 - 2),
        ({"model.norm": "layernorm"}, {}, 0),
        ({}, {"compile": "inductor"}, 0),
    ],
)
def test_what_a_norm_without_a_kernel_keeps_more_on_a_cpu(leaves, axes, num_bytes):
    axes = {"precision": "bf16"} | axes
    device, cpu = make_model(leaves, **axes), make_model(leaves, on_cpu=True, **axes)
    assert (device.kept_by_norm(), cpu.kept_by_norm()) == (0, TOKENS * D * num_bytes)
    assert cpu.block.saved - device.block.saved == 2 * TOKENS * D * num_bytes


def test_a_shared_norm_is_one():
    device, cpu = (make_model(PHI | {"model.norm": "rmsnorm"}, on_cpu, precision="bf16") for on_cpu in (False, True))
    assert cpu.block.saved - device.block.saved == TOKENS * D * 6


@pytest.mark.parametrize(("leaves", "matrices"), [({}, 3), (GPT2, 2)])
def test_what_is_trained_of_a_block(leaves, matrices):
    whole, frozen = make_model(leaves).block, make_model(leaves, workload="lora").block
    assert (whole.mlp_parameters, frozen.trained) == (matrices * D * F, 0)
    assert whole.trained == whole.parameters == whole.mlp_parameters + D * (D + 2 * KV) + D * D
