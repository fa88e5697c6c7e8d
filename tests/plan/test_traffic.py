import pytest

from benchrunner.core import arithmetic
from benchrunner.plan import traffic
from samples import make_cell

D, F, V = 64, 192, 512
"""Widths of the debug model: of itself, of its MLP, of its vocabulary."""
LAYERS = {"model.num_layers": 4}
WIDE_KV = {"model.num_kv_heads": 4}


def config(leaves=None, **axes):
    return make_cell(leaves=LAYERS | (leaves or {}), **axes).config


def of_a_block(leaves=None, **axes):
    """Bytes a token that one block more adds to the element-wise work."""
    few, more = (config((leaves or {}) | {"model.num_layers": layers}, **axes) for layers in (4, 5))
    return traffic.elementwise_bytes(more, 1) - traffic.elementwise_bytes(few, 1)


@pytest.mark.parametrize(
    ("axes", "leaves", "passes"),
    [
        ({"workload": "forward"}, {}, 1),
        ({"workload": "forward", "activation_checkpointing": "full"}, {}, 1),
        ({}, {}, 3),
        ({"activation_checkpointing": "full"}, {}, 4),
        ({"activation_checkpointing": "selective"}, {}, 3.5),
        ({"workload": "adapter"}, {"workload.adapter_start_layer": 1}, 2.5),
        ({"workload": "adapter"}, {"workload.adapter_start_layer": 9}, 1),
    ],
)
def test_work_is_done_as_often_as_there_are_passes(axes, leaves, passes):
    assert traffic.passes(config(leaves, **axes)) == passes


@pytest.mark.parametrize(
    ("axes", "leaves", "elements"),
    [
        ({}, WIDE_KV, 28 * D + 5 * F),
        ({"compile": "inductor"}, WIDE_KV, 17 * D + 3 * F),
        ({}, {"model.num_kv_heads": 2}, 28 * D + 5 * F - 7 * D / 2),
        ({}, {"model.positions": "learned"}, 14 * D + 5 * F),
        ({}, WIDE_KV | {"model.mlp": "gelu_tanh"}, 28 * D + 2 * F),
        ({"compile": "inductor"}, WIDE_KV | {"model.mlp": "gelu_tanh"}, 17 * D + 2 * F),
        ({}, WIDE_KV | {"model.parallel_residual": True}, 28 * D + 5 * F),
        ({}, WIDE_KV | {"model.parallel_residual": True, "model.shared_norm": True}, 26 * D + 5 * F),
    ],
)
def test_what_a_block_reads_and_writes_element_by_element(axes, leaves, elements):
    assert of_a_block(leaves, workload="forward", **axes) == 2 * elements
    assert of_a_block(leaves, **axes) == 2 * elements * 3
    mixed = of_a_block(leaves, workload="forward", precision="bf16-mixed", **axes)
    assert mixed == (2 + 4) / 2 * elements, "under autocast the residual stream is wider"


@pytest.mark.parametrize(
    ("axes", "leaves", "num_bytes"),
    [
        ({"workload": "forward"}, {}, 2),
        ({}, {}, 36),
        ({"compile": "inductor"}, {}, 10),
        ({}, {"workload.loss_chunk_tokens": 16}, 48),
    ],
)
def test_what_a_logit_passes_the_memory_as(axes, leaves, num_bytes):
    few, more = (config({"model.vocab_size": size} | leaves, **axes) for size in (V, V + 1))
    assert traffic.elementwise_bytes(more, 1) - traffic.elementwise_bytes(few, 1) == pytest.approx(num_bytes)


def test_all_of_it_is_for_each_token():
    assert traffic.elementwise_bytes(config(), 9) == pytest.approx(9 * traffic.elementwise_bytes(config(), 1))


@pytest.mark.parametrize(("compile", "block", "output"), [("eager", 18, 13), ("inductor", 8, 5)])
def test_an_adapter_adds_a_gated_sum_and_its_second_version_two_vectors_behind_every_linear(compile, block, output):
    whole = {"workload.adapter_start_layer": 0}
    plain, gated, scaled = (
        traffic.elementwise_bytes(config(whole if name == "adapter" else {}, workload=name, compile=compile), 1)
        for name in ("train", "adapter", "adapter_v2")
    )
    outputs = 4 * sum(outputs for _, outputs in arithmetic.linear_shapes(config().model).values()) + V
    assert gated - plain == pytest.approx(2 * 4 * block * D)
    assert scaled - gated == pytest.approx(2 * output * outputs)
    upper = config({"workload.adapter_start_layer": 3}, workload="adapter", compile=compile)
    lower = config({"workload.adapter_start_layer": 4}, workload="adapter", compile=compile)
    passes = of_a_block(workload="forward", compile=compile) * 2
    more = traffic.elementwise_bytes(upper, 1) - traffic.elementwise_bytes(lower, 1)
    assert more == pytest.approx(2 * block * D + passes)


def updated(leaves=None, devices=1, **axes):
    """Bytes of an update for each parameter that is trained."""
    cell = make_cell(visible_devices=devices, leaves=leaves, **axes)
    num_trained = arithmetic.num_trainable_parameters(cell.config.model, cell.config.workload)
    return pytest.approx(traffic.update_bytes(cell.config, cell.sizes) / num_trained)


def test_an_update_passes_parameters_gradients_and_moments():
    """Gradients once, parameters and the two moments there and back; of all micro-steps but the first a sum."""
    assert updated(workload="forward") == 0
    assert updated() == 2 * (1 + 2 + 4) and updated(precision="fp32") == 4 * (1 + 2 + 4)
    assert updated(workload="lora") == 14
    assert updated(optimizer="paged-adamw") == (2 * (1 + 2) + 4 * 4) * traffic.PAGED_FACTOR, "its moments are in fp32"
    assert updated({"global_batch_size": 3}) == 14 + 2 * 3 * 2
    assert updated(devices=2, strategy="ddp") == 14 and updated(devices=2, strategy="fsdp_stage2") == 7


@pytest.mark.parametrize(
    ("axes", "expected"),
    [
        ({}, 0),
        ({"precision": "bf16-mixed"}, (4 + 2) / 2),
        ({"precision": "bf16-mixed", "strategy": "fsdp_stage2"}, 0),
        ({"workload": "forward", "precision": "nf4"}, 2),
        ({"workload": "lora", "precision": "nf4"}, 2 * 2),
        ({"workload": "lora", "precision": "nf4", "activation_checkpointing": "full"}, 3 * 2),
    ],
)
def test_matrices_are_cast_or_unpacked_for_each_pass(axes, expected):
    one = config(**axes)
    assert traffic.cast_bytes(one, 7) == pytest.approx(expected * arithmetic.matmul_parameters(one.model))


@pytest.mark.parametrize(
    ("axes", "a_matrix", "a_width", "inner"),
    [
        ({"precision": "fp8"}, 5.5, 6.2, 3 * D + F),
        ({"precision": "fp8-torchao", "compile": "inductor"}, 9.0, 10.0, 3 * D + F),
        ({"precision": "fp8-torchao"}, 114, 114, 5 * D + 3 * F),
    ],
)
def test_both_factors_of_products_are_cast_to_fp8(axes, a_matrix, a_width, inner):
    one = config(**axes)
    in_blocks = 4 * arithmetic.block_matmul_parameters(one.model)
    matrices = in_blocks if axes["precision"] == "fp8-torchao" else arithmetic.matmul_parameters(one.model)
    none, ten = traffic.cast_bytes(one, 0), traffic.cast_bytes(one, 10)
    assert none == pytest.approx(a_matrix * matrices)
    assert ten - none == pytest.approx(10 * 4 * a_width * inner)
    again = config(activation_checkpointing="full", **axes)
    repeated = traffic.cast_bytes(again, 10) - traffic.cast_bytes(again, 0)
    assert repeated == pytest.approx((ten - none) * 4 / 3)


def copied(leaves=None, devices=2, **axes):
    """Bytes that a wrapper copies for each parameter of the model."""
    cell = make_cell(visible_devices=devices, leaves=leaves, **axes)
    return pytest.approx(traffic.copied_bytes(cell.config, cell.sizes) / arithmetic.num_parameters(cell.config.model))


def test_wrappers_copy_what_they_send_and_receive():
    """FSDP what it gathers and gradients in every micro-step, DDP gradients once."""
    assert copied() == copied(devices=1, strategy="fsdp_stage3") == 0
    assert copied(strategy="ddp") == copied({"global_batch_size": 4}, strategy="ddp") == 2 * traffic.BUCKET_COPIES
    assert copied(strategy="fsdp_stage2") == 2 * 2 * traffic.GATHER_COPIES
    assert copied(strategy="fsdp_stage3") == 3 * 2 * traffic.GATHER_COPIES
    assert copied({"global_batch_size": 4}, strategy="fsdp_stage3") == 2 * 3 * 2 * traffic.GATHER_COPIES
    assert copied(workload="forward", strategy="fsdp_stage3") == 2 * traffic.GATHER_COPIES
    assert copied(workload="generate", strategy="fsdp_stage3") == 2 * traffic.DECODED_COPIES


def test_a_model_that_is_not_trained_is_gathered_once_and_nothing_is_reduced():
    forward = make_cell(visible_devices=2, strategy="fsdp_stage3", workload="forward")
    one = arithmetic.num_parameters(forward.config.model) * 2 / 2
    assert traffic.sent_bytes(forward.config, forward.sizes) == one
    alone = make_cell(visible_devices=2, strategy="ddp", workload="forward")
    assert traffic.sent_bytes(alone.config, alone.sizes) == 0
