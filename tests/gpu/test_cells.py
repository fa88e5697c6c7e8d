"""What no CPU can show, through `bench` on CUDA devices: `make test-gpu`."""

import json
import os
import subprocess
import sys

import pytest
import torch

from benchrunner.core.faults import VARIABLE

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is visible")]
several = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")

SMALL = ["model=debug", "model.num_layers=2", "measure.warmup_steps=2", "measure.steps=4", "brake=null"]


def run(folder, *words, fault=None):
    """Slug → record of a matrix, run as a user runs it."""
    env = {name: value for name, value in os.environ.items() if name != VARIABLE}
    env |= {VARIABLE: fault} if fault else {}
    command = [sys.executable, "-m", "benchrunner", "-m", *SMALL, *words, f"out_dir={folder}"]
    job = subprocess.run(command, env=env, capture_output=True, text=True)
    records = [json.loads(path.read_text()) for path in folder.glob("*/2*/cells/*/record.json")]
    assert records, job.stderr[-3000:]
    return {record["slug"]: record for record in records}


def verdicts(records):
    return {slug: record["reason_code"] or record["status"] for slug, record in records.items()}


def test_words_of_32_bits_survive_the_copy_that_gathers_shards():
    """CUDA's `_foreach_copy_` takes bfloat16 through float32 and changes what spells a NaN: packed bits are float32."""
    words = torch.randint(-(2**31), 2**31 - 1, (1 << 22,), dtype=torch.int32, device="cuda").view(torch.float32)
    copy = torch.empty_like(words)
    torch._foreach_copy_([copy], [words])
    assert torch.equal(copy.view(torch.int32), words.view(torch.int32))


@pytest.mark.parametrize(
    "words",
    [
        ["precision=fp32,bf16,bf16-mixed,fp16-mixed", "compile=eager,inductor"],
        ["precision=fp8-torchao", "compile=eager,inductor", "activation_checkpointing=none,full"],
        ["precision=nf4,nf4-dq", "workload=lora,generate"],
        ["workload=generate", "compile=inductor", "compile.mode=reduce-overhead", "compile.scope=model"],
        ["workload=train,lora", "workload.lengths=alpaca"],
        pytest.param(["strategy=ddp,fsdp_stage2,fsdp_stage3", "devices=2", "precision=bf16,bf16-mixed"], marks=several),
        pytest.param(["strategy=fsdp_stage3", "devices=2", "workload=lora", "precision=nf4,nf4-dq"], marks=several),
        pytest.param(["strategy=ddp,fsdp_stage2,fsdp_stage3", "devices=2", "engine=fabric"], marks=several),
    ],
    ids=" ".join,
)
def test_healthy_cells_are_ok(words, tmp_path):
    found = verdicts(run(tmp_path, *words))
    assert set(found.values()) == {"ok"}, found


def test_transformer_engine_converts_or_is_found_out(tmp_path):
    pytest.importorskip("transformer_engine")
    recipes = "precision.recipe=delayed,current"
    healthy = verdicts(run(tmp_path / "healthy", "precision=fp8", recipes, "compile=eager,inductor"))
    assert set(healthy.values()) == {"ok"}, healthy
    lying = verdicts(run(tmp_path / "lying", "precision=fp8", recipes, fault="no_convert"))
    assert set(lying.values()) == {"validity.precision"}, lying


def test_parity_judges_transformer_engine(tmp_path):
    """The only precision with a tolerance that no CPU computes."""
    pytest.importorskip("transformer_engine")
    words = ["workload=parity", "precision=fp8"]
    healthy = run(tmp_path / "healthy", *words, "precision.recipe=delayed,current,block")
    assert all(record["checks"]["parity"]["ok"] for record in healthy.values()), healthy
    lying = verdicts(run(tmp_path / "lying", *words, fault="wrong_linear"))
    assert set(lying.values()) == {"validity.parity"}, lying


def test_a_device_that_is_really_full_is_named_and_empty_afterwards(tmp_path):
    """The cell after the struck one runs on the same device."""
    records = run(tmp_path, "precision=bf16", "seed=1,2", fault="oom@0:measure/*seed-1*")
    assert sorted(verdicts(records).values()) == ["ok", "oom.device"]


def test_varying_lengths_do_without_the_kernel_that_prepares_for_every_shape(tmp_path):
    (record,) = run(tmp_path, "precision=bf16", "workload.lengths=alpaca").values()
    assert record["metrics"]["attention"] in ("flash", "efficient")
