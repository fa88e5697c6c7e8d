"""What is alive when a step has been walked through, and where it is largest."""

from itertools import product

import pytest

from benchrunner.core import arithmetic
from benchrunner.core.units import MIB
from benchrunner.plan.kept import Model
from benchrunner.plan.live_memory import Tape
from benchrunner.plan.memory import peak_memory
from benchrunner.plan.training_memory import walk_training_step
from samples import make_cell

GPT2 = {
    "model.num_layers": 3, "model.d_model": 1600, "model.d_ff": 6400, "model.num_heads": 25, "model.num_kv_heads": 25,
    "model.mlp": "gelu_tanh", "model.norm": "layernorm", "model.positions": "learned", "model.bias": True,
    "model.max_seq_len": 1024, "model.tie_embeddings": True, "model.vocab_size": 512, "seq_len": 1024,
    "micro_batch_size": 8,
}  # fmt: skip
LLAMA = {
    "model.num_layers": 3, "model.d_model": 4096, "model.d_ff": 11008, "model.num_heads": 32, "model.num_kv_heads": 8,
    "model.max_seq_len": 4096, "model.vocab_size": 512, "seq_len": 2048,
}  # fmt: skip


def peak(leaves, devices=1, **axes):
    return peak_memory(make_cell(visible_devices=devices, leaves=leaves, **({"precision": "bf16"} | axes)))


def after_a_step(leaves, micro_steps, strategy, **axes):
    """The model, and what is alive of what its step took."""
    devices = 1 if strategy == "single" else 2
    sizes = {"micro_batch_size": 1, "global_batch_size": devices * micro_steps}
    cell = make_cell(visible_devices=devices, leaves=leaves | sizes, strategy=strategy, **axes)
    model, tape = Model(cell.config, cell.sizes), Tape()
    walk_training_step(model, tape)
    return model, tape.live


@pytest.mark.parametrize("strategy", ["single", "ddp", "fsdp_stage2", "fsdp_stage3"])
@pytest.mark.parametrize(
    ("workload", "precision"),
    [("train", "bf16"), ("train", "bf16-mixed"), ("train", "fp8"), ("lora", "nf4"), ("adapter_v2", "bf16")],
)
@pytest.mark.parametrize("micro_steps", [1, 2])
def test_what_a_step_takes_it_gives_back_but_gradients(strategy, workload, precision, micro_steps):
    """However many blocks there are, whatever is computed again, and of FSDP but what the root left on its way."""
    axes = {"workload": workload, "precision": precision}
    for checkpointing, layers, mlp in product(("none", "selective"), (1, 3, 9), ("swiglu", "gelu")):
        axes |= {"activation_checkpointing": checkpointing, "compile": "inductor" if mlp == "gelu" else "eager"}
        model, live = after_a_step({"model.num_layers": layers, "model.mlp": mlp}, micro_steps, strategy, **axes)
        shape, width, trains_all = model.shape, model.width, workload == "train"
        norms, embedding = arithmetic.norm_parameters(shape), arithmetic.embedding_parameters(shape)
        everything = arithmetic.num_parameters(shape)
        assert live["activations"] == pytest.approx(0, abs=1) and live["logits"] == pytest.approx(0, abs=1)
        added = trains_all and (strategy == "ddp" or (strategy == "single" and micro_steps > 1))
        assert live["temporaries"] == pytest.approx(model.block.input + (embedding * width.stored if added else 0))
        left = trains_all and not added and not (model.is_fsdp and micro_steps > 1)
        whole = (everything - norms) * width.stored / model.ranks if left else 0
        assert live["gradients"] == pytest.approx(whole, abs=4 * norms)  # norms have gradients nowhere in the walk
        root = everything - layers * arithmetic.block_matmul_parameters(shape)
        if model.is_fsdp and trains_all:
            assert live["communication"] == pytest.approx(root * width.reduced)
        else:
            assert (live["communication"] > 0) is model.is_fsdp


@pytest.mark.parametrize(
    ("leaves", "axes", "dry_run_mib"),
    [
        (GPT2, {}, 1956.5),
        (GPT2, {"activation_checkpointing": "full"}, 1272.1),
        (GPT2, {"precision": "bf16-mixed"}, 2875.9),
        (GPT2, {"precision": "bf16-mixed", "activation_checkpointing": "full"}, 2096.9),
        (GPT2 | {"global_batch_size": 16}, {"activation_checkpointing": "full"}, 1385.4),
        (GPT2 | {"attention": "explicit"}, {}, 3606.6),
        (GPT2 | {"attention": "explicit"}, {"workload": "forward"}, 1539.7),
        (LLAMA | {"attention": "explicit"}, {"activation_checkpointing": "full"}, 4964.3),
        (LLAMA, {"precision": "fp8-torchao", "activation_checkpointing": "full"}, 4943.5),
        (LLAMA | {"seq_len": 256}, {"precision": "fp8-torchao", "activation_checkpointing": "full"}, 4707.9),
        (LLAMA | {"model.num_layers": 1, "seq_len": 4096, "micro_batch_size": 4},
         {"precision": "fp8-torchao", "activation_checkpointing": "full"}, 6660.5),
        (LLAMA, {"workload": "lora", "precision": "nf4"}, 1265.8),
        (LLAMA | {"seq_len": 32}, {"workload": "lora", "precision": "nf4"}, 544.0),
        (LLAMA | {"seq_len": 32}, {"workload": "lora"}, 1105.9),
    ],
)  # fmt: skip
def test_peaks_that_the_dry_run_has_too(leaves, axes, dry_run_mib):
    """With so few words the peak is in the blocks, not in the loss."""
    assert peak(leaves, **axes).total_bytes / MIB == pytest.approx(dry_run_mib, rel=0.007)


WORDY = {"model.vocab_size": 32000, "seq_len": 4096, "micro_batch_size": 4}


def test_the_phase_of_a_peak_is_that_of_its_largest_part():
    assert peak(LLAMA | WORDY).phase == "loss"
    assert peak(LLAMA).phase == peak(LLAMA, activation_checkpointing="full").phase == "backward"


def test_inputs_of_the_loss_are_kept_and_gradients_of_chunks_that_are_through():
    """The residual stream, and what the head's matrix needs of the last norm unless it is frozen."""
    tokens, width = 4 * 4096, 4096
    for workload, inputs in (("train", 2), ("lora", 1)):
        cell = make_cell(visible_devices=1, leaves=LLAMA | WORDY, workload=workload, precision="bf16")
        model, found = Model(cell.config, cell.sizes), peak_memory(cell)
        blocks = sum(model.kept(index) for index in range(3))
        assert found.terms["activations"] == blocks + inputs * tokens * width * 2
    one_chunk = peak(LLAMA | WORDY | {"workload.loss_chunk_tokens": tokens})
    assert one_chunk.total_bytes - peak(LLAMA | WORDY).total_bytes == tokens * width * 2


def test_on_a_cpu_all_norms_keep_more_and_no_workspaces_are_there():
    cell = make_cell(visible_devices=1, leaves=LLAMA | WORDY, precision="bf16")
    device, cpu = peak_memory(cell), peak_memory(cell, on_cpu=True)
    norms = 2 * 3 + 1
    assert device.total_bytes - device.terms["workspaces"] + norms * 4 * 4096 * 4096 * 6 == cpu.total_bytes


@pytest.mark.parametrize("strategy", ["ddp", "fsdp_stage2", "fsdp_stage3"])
def test_alone_every_strategy_is_a_single_device(strategy):
    assert peak(LLAMA, strategy=strategy) == peak(LLAMA)
