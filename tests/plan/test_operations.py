import pytest

from benchrunner.plan import operations
from benchrunner.plan.operations import (
    ADDED_TO_BLOCK,
    ADDED_TO_LINEAR,
    AUTOGRAD,
    CAPTURED_GRAPH,
    CHECKPOINT,
    CHUNK,
    COMPILED_BLOCK,
    COMPILED_LINEAR,
    COMPILED_PASS,
    GATHER,
    MICRO_STEP,
    REDUCED_TENSOR,
    ROOT,
    SAMPLING,
    UPDATE,
    UPDATED_TENSOR,
)
from samples import make_cell

BACK = operations.BACKWARD * operations.BACKWARD_OPERATIONS
"""An eager backward pass, in forward passes."""
REPLAYED = {"compile.mode": "reduce-overhead"}


def count(leaves=None, lengths=((64, 1),), devices=1, **axes):
    cell = make_cell(visible_devices=devices, leaves=leaves, **axes)
    return operations.step_operations(cell.config, cell.sizes, lengths)


def decoded(leaves=None, devices=1, **axes):
    cell = make_cell(visible_devices=devices, leaves=leaves, workload="generate", **axes)
    return operations.decode_operations(cell.config, cell.sizes)


def of_a_block(leaves=None, **axes):
    """What one block more adds."""
    few, more = (count({"model.num_layers": layers} | (leaves or {}), **axes) for layers in (4, 5))
    return pytest.approx(more - few)


@pytest.mark.parametrize(
    ("axes", "leaves", "expected"),
    [
        ({}, {}, 17),
        ({"model": "gpt2-125m"}, {}, 10),
        ({"model": "falcon-7b"}, {}, 15),
        ({}, {"model.parallel_residual": True}, 17),
        ({"precision": "fp32"}, {}, 17),
        ({"precision": "bf16-mixed"}, {}, 17 + 6),
        ({"precision": "bf16-mixed", "model": "gpt2-125m"}, {}, 10 + 10),
        ({"precision": "bf16-mixed", "strategy": "fsdp_stage3"}, {}, 17),
        ({"precision": "fp8-torchao"}, {}, 17 + 4 * ADDED_TO_LINEAR["fp8-torchao"]),
        ({"compile": "inductor"}, {}, COMPILED_BLOCK),
        ({"compile": "inductor", "precision": "fp8"}, {}, COMPILED_BLOCK + 4 * COMPILED_LINEAR["fp8"]),
        ({"compile": "inductor"}, REPLAYED, CAPTURED_GRAPH),
        ({"compile": "inductor"}, {"compile.mode": "max-autotune"}, CAPTURED_GRAPH),
        ({"strategy": "fsdp_stage3", "devices": 2}, {}, 17 + GATHER),
        ({"strategy": "fsdp_stage3", "devices": 2}, {"strategy.wrap": "module"}, 17 + 6 * GATHER),
    ],
)
def test_a_block_of_a_forward_pass(axes, leaves, expected):
    assert of_a_block(leaves, workload="forward", **axes) == expected


@pytest.mark.parametrize(
    ("axes", "leaves", "expected"),
    [
        ({}, {}, 17 * (1 + BACK)),
        ({"activation_checkpointing": "full"}, {}, 17 * (2 + BACK) + CHECKPOINT),
        ({"compile": "inductor"}, {}, 2 * COMPILED_PASS),
        ({"strategy": "ddp", "devices": 1}, {}, 17 * (1 + BACK)),
        ({"strategy": "ddp", "devices": 2}, {}, 17 * (1 + BACK) + 6 * REDUCED_TENSOR),
        ({"strategy": "fsdp_stage2", "devices": 2}, {}, 17 * (1 + BACK) + 2 * GATHER),
        ({"strategy": "fsdp_stage3", "devices": 2}, {}, 17 * (1 + BACK) + 3 * GATHER),
        ({"model": "gpt2-125m"}, {}, 10 * (1 + BACK)),
        ({"workload": "lora"}, {}, (17 + ADDED_TO_BLOCK["lora"]) * (1 + BACK)),
        ({"workload": "adapter_v2"}, {}, (17 + ADDED_TO_BLOCK["adapter_v2"]) * (1 + BACK)),
        ({"workload": "adapter"}, {"workload.adapter_start_layer": 0}, (17 + ADDED_TO_BLOCK["adapter"]) * (1 + BACK)),
    ],
)
def test_a_block_of_a_training_step_goes_there_and_back_and_its_tensors_are_updated(axes, leaves, expected):
    tensors = {"lora": 3, "adapter": 2, "adapter_v2": 14}.get(
        axes.get("workload"), 12 if axes.get("model") == "gpt2-125m" else 6
    )
    assert of_a_block(leaves, **axes) == AUTOGRAD * (expected + UPDATED_TENSOR * tensors)


def test_below_the_first_prompt_of_an_adapter_no_block_goes_back():
    every, upper, none = (
        count({"model.num_layers": 4, "workload.adapter_start_layer": start}, workload="adapter") for start in (0, 2, 9)
    )
    assert every - upper == pytest.approx(upper - none)
    assert every - none == pytest.approx(AUTOGRAD * 4 * BACK * (17 + ADDED_TO_BLOCK["adapter"]))


def test_a_forward_pass_is_its_blocks_and_what_is_around_them_in_every_micro_step():
    layers, twice = {"model.num_layers": 4}, ((64, 1), (32, 2))
    assert count(layers, twice, workload="forward") == 3 * (4 * 17 + ROOT + MICRO_STEP)
    gathered = count(layers, workload="forward", strategy="fsdp_stage3", devices=2)
    assert gathered == 4 * (17 + GATHER) + GATHER + ROOT + MICRO_STEP


def test_a_training_step_updates_once_however_many_micro_steps_it_has():
    layers = {"model.num_layers": 4}
    a_micro_step = 4 * 17 * (1 + BACK) + ROOT * (1 + BACK) + MICRO_STEP
    update = UPDATE + 4 * 6 * UPDATED_TENSOR
    assert count(layers, ((64, 1), (32, 2))) == pytest.approx(AUTOGRAD * (3 * a_micro_step + update))
    gathered = AUTOGRAD * (a_micro_step + 4 * 3 * GATHER + 3 * GATHER + update)
    assert count(layers, strategy="fsdp_stage3", devices=2) == pytest.approx(gathered)


def test_each_chunk_of_the_loss_is_computed_there_again_and_back():
    chunks, twice = {"workload.loss_chunk_tokens": 48, "micro_batch_size": 2}, ((64, 1), (32, 3))
    more = count(chunks, twice) - count({"micro_batch_size": 2}, twice)
    assert more == pytest.approx(AUTOGRAD * CHUNK * (3 + 3 * 2) * (2 + BACK))


def test_a_token_is_decoded_block_by_block_or_by_one_replay():
    blocks = {"model.num_layers": 4}
    assert decoded(blocks) == 4 * (17 + 2) + ROOT + SAMPLING, "two more for the cache"
    assert decoded(blocks, strategy="fsdp_stage3", devices=2) == 4 * (19 + GATHER) + GATHER + ROOT + SAMPLING
    assert decoded(blocks, compile="inductor") == 4 * COMPILED_BLOCK + ROOT + SAMPLING
    assert decoded(REPLAYED | blocks, compile="inductor") == 4 * CAPTURED_GRAPH + ROOT + SAMPLING
    whole = REPLAYED | {"compile.scope": "model"}
    assert decoded(whole, compile="inductor") == CAPTURED_GRAPH + SAMPLING
    assert decoded(whole | {"generate.unit": "token"}, compile="inductor") == CAPTURED_GRAPH
