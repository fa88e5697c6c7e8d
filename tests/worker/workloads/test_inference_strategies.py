"""Forward and generate on two ranks: replicas under ddp, shards under fsdp, the same tokens either way."""

import json
import os
import subprocess

import pytest

from cells import SUPPORT, torchrun

JOB = SUPPORT / "inference_job.py"
SMALL = ["model.num_layers=2", "model.vocab_size=96", "model.init_std=0.2", "seq_len=16", "precision=fp32"]
SHORT = ["generate.new_tokens=8", "generate.num_samples=2", "measure.steps=2", "measure.warmup_steps=1"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """One process group of two ranks runs ddp and fsdp; `single` takes both ranks' prompts as one batch."""
    outputs = []
    for words, processes in ((["strategy=ddp,fsdp"], 2), (["strategy=single", "micro_batch_size=2"], 1)):
        out = tmp_path_factory.mktemp("inference") / "out.json"
        words += ["workload=forward,generate", "generate.temperature=0", *SMALL, *SHORT]
        job = subprocess.run(
            torchrun(JOB, str(out), *words, processes=processes),
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
        assert job.returncode == 0, job.stderr[-3000:]
        outputs += json.loads(out.read_text())
    return {(run["axes"]["workload"], run["axes"]["strategy"]): run for run in outputs}


@pytest.mark.slow
def test_replicas_and_shards_generate_what_one_device_does(runs):
    expected = runs["generate", "single"]["tokens"]
    assert expected[0] != expected[1]
    assert runs["generate", "ddp"]["tokens"] == expected
    assert runs["generate", "fsdp_stage3"]["tokens"] == expected


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp_stage3"])
@pytest.mark.parametrize(("workload", "tokens"), [("forward", 2 * 16), ("generate", 2 * 8)])
def test_a_step_counts_all_ranks(runs, workload, strategy, tokens):
    result = runs[workload, strategy]["result"]
    assert result["tokens_per_step"] == tokens
    assert result["samples_per_step"] == 2
    assert not [name for name, check in result["checks"].items() if check["ok"] is False]
    assert result["checks"]["function"]["ok"], result["checks"]["function"]


@pytest.mark.slow
def test_shards_are_checked(runs):
    for workload in ("forward", "generate"):
        assert runs[workload, "fsdp_stage3"]["result"]["checks"]["sharded"]["ok"]
