"""4-bit linears: what they weigh, what they hold, that finetuning over them works in every strategy."""

import json
import os
import subprocess

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchrunner.core import arithmetic
from benchrunner.core.errors import Unsupported
from benchrunner.worker.axes.precision import nf4
from benchrunner.worker.engines.built import decoder_on_meta
from benchrunner.worker.engines.engine import build
from benchrunner.worker.steps.training_loop import TrainingLoop
from cells import SUPPORT, make_cell, make_context, make_matrix, torchrun

bitsandbytes = pytest.importorskip("bitsandbytes")

JOB = SUPPORT / "equivalence_job.py"
SMALL = ["model.num_layers=2", "model.vocab_size=256", "seq_len=32", "workload=lora", "workload.lora_dropout=0"]
LARGE = ["model.num_layers=1", "model.d_model=512", "model.d_ff=2048", "model.num_heads=8", "model.num_kv_heads=8"]
ROUNDING = 2e-3
"""Losses of one bf16 model, summed in another order."""


def dequantised(linear):
    return bitsandbytes.functional.dequantize_4bit(linear.weight.data, linear.quant_state)


@pytest.mark.parametrize("words", [[], ["precision.scope=blocks"], ["model.tie_embeddings=true"]])
@pytest.mark.parametrize("precision", ["nf4", "nf4-dq"])
def test_resident_bytes_are_those_of_the_law(precision, words):
    cell = make_cell(*LARGE, "model.vocab_size=4096", "workload=forward", f"precision={precision}", *words)
    built = build(make_context(cell))
    law = arithmetic.resident_weight_bytes(cell.config.model, cell.config.precision)
    assert nf4.resident_bytes(built.decoder) == pytest.approx(law, rel=0.005)
    assert built.num_parameters == arithmetic.num_parameters(cell.config.model)


@pytest.mark.parametrize("precision", ["nf4", "nf4-dq"])
def test_packed_weights_stand_for_the_matrices_of_every_other_precision(precision):
    plain = build(make_context(make_cell(*SMALL, "precision=bf16"))).decoder
    packed = build(make_context(make_cell(*SMALL, f"precision={precision}"))).decoder
    linears = nf4.packed_linears(packed)
    assert len(linears) == 2 * 4 + 1
    for name, linear in linears.items():
        full = plain.get_submodule(name).weight
        error = (dequantised(linear) - full).float().norm() / full.float().norm()
        assert 0.05 < error < 0.12, name
    assert torch.equal(plain.embedding.weight, packed.embedding.weight)


def test_a_tied_head_is_packed_from_the_embedding_and_leaves_it_alone():
    words = [*SMALL, "model.tie_embeddings=true"]
    plain = build(make_context(make_cell(*words, "precision=bf16"))).decoder
    packed = build(make_context(make_cell(*words, "precision=nf4"))).decoder
    assert torch.equal(packed.embedding.weight, plain.embedding.weight)
    error = (dequantised(packed.head) - plain.embedding.weight).float().norm() / plain.embedding.weight.float().norm()
    assert error < 0.12


def test_biases_stay_in_bf16():
    cell = make_cell("model=gpt2-125m", *SMALL, "model.d_model=64", "model.num_heads=4", "model.num_kv_heads=4",
                     "model.d_ff=128", "precision=nf4")  # fmt: skip
    linear = build(make_context(cell)).decoder.blocks[0].attention.qkv
    assert linear.bias.dtype == torch.bfloat16 and not linear.bias.requires_grad
    torch.nn.init.normal_(linear.bias)
    x = torch.randn(3, 64, dtype=torch.bfloat16)
    expected = torch.nn.functional.linear(x, dequantised(linear), linear.bias)
    torch.testing.assert_close(linear(x), expected, atol=0.05, rtol=0.05)


@pytest.mark.parametrize("workload", ["lora", "adapter", "adapter_v2"])
@pytest.mark.parametrize("precision", ["nf4", "nf4-dq"])
def test_finetuning_trains_what_was_added_and_nothing_else(precision, workload):
    words = [f"workload={workload}", f"precision={precision}", "workload.adapter_start_layer=1", "optimizer.lr=0.02"]
    cell = make_cell(*SMALL, *words)
    loop = TrainingLoop(make_context(cell), build(make_context(cell)))
    before = snapshot(loop)
    loop.prepare(range(3))
    for step in range(3):
        loop.step(step)
    after = snapshot(loop)
    for name, value in loop.built.decoder.named_parameters():
        added = "lora" in name or "adapter" in name
        assert value.requires_grad == (added or (workload == "adapter_v2" and "norm" in name)), name
        if "norm" not in name:  # a bf16 weight of 1 needs a larger step
            assert torch.equal(after[name], before[name]) != added, name


def snapshot(loop):
    """All parameters, bit by bit: packed ones may look like NaN."""
    named = loop.built.decoder.named_parameters()
    return {name: value.detach().clone().contiguous().view(torch.uint8) for name, value in named}


def test_a_model_without_linears_is_refused():
    cell = make_cell(*SMALL, "precision=nf4", "precision.scope=blocks")
    decoder = decoder_on_meta(cell)
    decoder.blocks = torch.nn.ModuleList()
    with pytest.raises(Unsupported, match="no linear"):
        nf4.quantise(decoder, cell, torch.device("cpu"))


@pytest.mark.parametrize(("every", "num_products"), [("per_op", 9), ("1/1", 15)])
def test_per_operation_checkpointing_keeps_the_librarys_products(every, num_products):
    """A pass has 2 · 4 + 1; recomputing a whole block stops before its last product."""
    words = ["activation_checkpointing=selective", f"activation_checkpointing.every={every}", "precision=nf4"]
    built = build(make_context(make_cell(*SMALL, *words)))
    tokens = torch.randint(0, 256, (2, 16))
    with CountProducts() as counter:
        built.model(tokens, tokens).backward()
    assert counter.num_products == num_products


class CountProducts(TorchDispatchMode):
    num_products = 0

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        self.num_products += operator is torch.ops.bitsandbytes.gemm_4bit.default
        return operator(*args, **(kwargs or {}))


def test_changed_bits_are_refused():
    expected = torch.tensor([1.0, 2.0, 3.0, 4.0])
    nf4._require_equal("head", expected.clone(), expected, 1)
    with pytest.raises(Unsupported, match=r"rank 1 dequantises 25\.00%") as caught:
        nf4._require_equal("head", torch.tensor([1.0, 2.0, 3.0, 5.0]), expected, 1)
    assert caught.value.code == "runtime.nf4_fsdp_bits"


def run_job(tmp_path, *words):
    """One process group of two ranks runs every strategy; `single` runs on each rank by itself."""
    out = tmp_path / "out.json"
    words = [*SMALL, "micro_batch_size=2", "global_batch_size=8", "optimizer.lr=0.01", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    job = subprocess.run(torchrun(JOB, str(out), *words), env=environment, capture_output=True, text=True)
    assert job.returncode == 0, job.stderr[-3000:]
    return json.loads(out.read_text())


def require_alike(results, number):
    assert len(results) == number and len({result["weights"] for result in results}) == 1
    reference = torch.tensor(results[0]["losses"])
    assert reference.std() > 2 * ROUNDING, "a flat curve would prove nothing"
    for result in results:
        torch.testing.assert_close(torch.tensor(result["losses"]), reference, atol=ROUNDING, rtol=0, msg=str(result))


def test_every_strategy_holds_the_same_bits_and_has_the_same_losses(tmp_path):
    require_alike(run_job(tmp_path, "precision=nf4-dq", "strategy=single,ddp,fsdp_stage3"), 3)


@pytest.mark.slow
@pytest.mark.parametrize("workload", ["adapter", "adapter_v2"])
def test_every_strategy_agrees_on_adapters(tmp_path, workload):
    words = [f"workload={workload}", "workload.adapter_start_layer=0"]
    strategies = "strategy=single,ddp,fsdp_stage2,fsdp_stage3"
    require_alike(run_job(tmp_path, *words, "precision=nf4", strategies), 4)


@pytest.mark.slow
def test_compiled_blocks_compute_the_same():
    losses = []
    for cell in make_matrix(*SMALL, "precision=nf4-dq", "compile=eager,inductor", "measure.steps=1"):
        loop = TrainingLoop(make_context(cell), build(make_context(cell)))
        loop.prepare(range(3))
        for step in range(3):
            loop.step(step)
        losses.append(torch.tensor(loop.mean_losses()))
    torch.testing.assert_close(losses[0], losses[1], atol=ROUNDING, rtol=0)
