import pytest

from benchrunner.core import arithmetic
from benchrunner.plan.products import Product, products_of, split_seconds
from samples import make_cell

TOKENS = 8


def times(linear, leaves=None, **axes):
    """How often one of 4 blocks' linears, or the head, is multiplied: forward, for its input's and its own gradient."""
    config = make_cell(leaves={"model.num_layers": 4} | (leaves or {}), **axes).config
    shapes = {**arithmetic.linear_shapes(config.model), "head": (config.model.d_model, config.model.vocab_size)}
    inputs, outputs = shapes[linear]
    found = {one[:3]: one.times for one in products_of(config, TOKENS)}
    passes = (TOKENS, inputs, outputs), (TOKENS, outputs, inputs), (inputs, TOKENS, outputs)
    return tuple(found.get(one, 0) for one in passes)


def test_a_product_reads_both_factors_and_writes_the_result():
    one = Product(rows=2, inner=3, columns=5, times=7, in_fp8=False)
    assert one.flops == 2 * 2 * 3 * 5 * 7
    assert one.num_bytes(4.0) == 4 * 7 * (2 * 3 + 3 * 5 + 2 * 5)


@pytest.mark.parametrize(
    ("axes", "leaves", "expected"),
    [
        ({"workload": "forward"}, {}, (4, 0, 0)),
        ({"workload": "forward", "activation_checkpointing": "full"}, {}, (4, 0, 0)),
        ({}, {}, (4, 4, 4)),
        ({"activation_checkpointing": "full"}, {}, (8, 4, 4)),
        ({"activation_checkpointing": "selective"}, {}, (6, 4, 4)),
        ({"activation_checkpointing": "full"}, {"activation_checkpointing.every": "per_op"}, (4, 4, 4)),
        ({"workload": "lora"}, {}, (4, 4, 0)),
        ({"workload": "adapter"}, {"workload.adapter_start_layer": 3}, (4, 1, 0)),
        ({"workload": "adapter"}, {"workload.adapter_start_layer": 9}, (4, 0, 0)),
    ],
)
def test_the_linears_of_a_block_are_multiplied_as_often_as_it_has_passes(axes, leaves, expected):
    assert times("gate_up", leaves, **axes) == expected


@pytest.mark.parametrize(
    ("axes", "leaves", "forward"), [({}, {}, 4), ({}, {"model.dropout": 0.1}, 8), ({"precision": "fp8"}, {}, 8)]
)
def test_a_recomputed_block_needs_its_last_product_again_only_where_something_follows_it(axes, leaves, forward):
    assert times("down", leaves, activation_checkpointing="full", **axes) == (forward, 4, 4)


@pytest.mark.parametrize(
    ("axes", "leaves", "expected"),
    [
        ({"workload": "forward"}, {"workload.loss_chunk_tokens": 4}, (1, 0, 0)),
        ({}, {}, (1, 1, 1)),
        ({}, {"model.num_layers": 1}, (1, 1, 1)),
        ({}, {"workload.loss_chunk_tokens": 4}, (2, 1, 1)),
        ({"workload": "lora"}, {}, (1, 1, 0)),
    ],
)
def test_the_head_is_multiplied_twice_where_the_loss_is_computed_in_chunks(axes, leaves, expected):
    assert times("head", leaves, **axes) == expected


@pytest.mark.parametrize(
    ("leaves", "head_in_fp8"),
    [({}, True), ({"precision.scope": "blocks"}, False), ({"model.tie_embeddings": True}, False)],
)
def test_fp8_converts_the_blocks_and_the_head_unless_that_is_left_out_or_tied(leaves, head_in_fp8):
    config = make_cell(precision="fp8", leaves=leaves).config
    in_fp8 = {one[:3]: one.in_fp8 for one in products_of(config, TOKENS)}
    assert in_fp8.pop((TOKENS, config.model.d_model, config.model.vocab_size)) is head_in_fp8
    assert in_fp8[TOKENS, config.model.d_ff, config.model.d_model] is True
    assert not any(one.in_fp8 for one in products_of(make_cell().config, TOKENS))


def test_each_product_takes_what_it_computes_or_what_it_reads():
    computing, waiting = Product(8, 8, 8, 2, False), Product(1, 8, 8, 1, False)
    flops_per_s, bytes_per_s = 1.0, 1 / 3
    split = split_seconds([computing, waiting, waiting, computing], 1.0, flops_per_s, bytes_per_s)
    assert split == pytest.approx((2 * computing.flops, 2 * 3 * waiting.num_bytes(1.0)))
    assert split_seconds([waiting], 1.0, flops_per_s, None) == (waiting.flops, 0.0)
