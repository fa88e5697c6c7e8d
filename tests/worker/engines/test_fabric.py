"""Fabric's strategies compute what torch's own do, and what Fabric refuses is a verdict in its words."""

import importlib.util
import json
import os
import subprocess

import pytest
import torch

from benchrunner.core.errors import Unsupported
from benchrunner.worker.engines import fabric_precision
from benchrunner.worker.engines.engine import build
from benchrunner.worker.engines.fabric import refusals
from benchrunner.worker.steps import training_loop
from benchrunner.worker.workloads import train
from cells import SUPPORT, make_cell, make_context, make_matrix, torchrun

JOB = SUPPORT / "fabric_job.py"
SMALL = ["model.num_layers=2", "model.vocab_size=256", "seq_len=32", "global_batch_size=8", "micro_batch_size=2"]
EXACT = [*SMALL, "precision=fp32", "optimizer=sgd", "optimizer.lr=0.5", "optimizer.clip_norm=1"]
FEW = ["measure.steps=2", "measure.warmup_steps=1"]
SHORT = ["generate.prompt_length=8", "generate.new_tokens=8", "generate.num_samples=2", "global_batch_size=4"]
PARTLY_TRAINED_LIES = {"same_drops": "mode", "no_recompute": "recompute", "loud_adapter": "function"}
"""Lie about a cell whose flat parameters train in part → the check that finds it."""
FLAT = ["strategy=fsdp_stage3", "engine=fabric", "activation_checkpointing=full"]
MATRICES = [
    ["strategy=single,ddp", "engine=native,fabric", "activation_checkpointing=none,selective"],
    ["strategy=fsdp_stage2,fsdp_stage3", "engine=native,fabric,fabric-model-parallel"],
    ["strategy=fsdp_stage3", "engine=fabric,fabric-model-parallel", "strategy.accumulation_sync=last"],
    ["strategy=fsdp_stage3", "engine=fabric", "strategy.wrap=module", "strategy.backward_prefetch=none,post"],
    ["strategy=fsdp_stage3", "engine=fabric", "activation_checkpointing=full"],
    ["strategy=single", "engine=native", "model.tie_embeddings=true"],
    ["strategy=fsdp_stage3", "engine=fabric", "model.tie_embeddings=true", "strategy.wrap=block,module"],
    ["strategy=fsdp_stage3", "engine=native,fabric", "workload=generate", "generate.temperature=0", *SHORT],
    ["strategy=ddp,fsdp_stage2,fsdp_stage3", "engine=fabric", "fault=no_reduce", *FEW],
    ["strategy=fsdp_stage3", "engine=fabric-model-parallel", "fault=no_reduce", *FEW],
]
CHECKED = [
    ["strategy=fsdp_stage2,fsdp_stage3", "engine=fabric", "optimizer=adamw", "optimizer.lr=1e-3", "fault=", *FEW],
    [*FLAT, "workload=lora", "strategy.wrap=block,module", "fault=", *FEW],
    [*FLAT, "workload=adapter,adapter_v2", "workload.adapter_start_layer=1", "strategy.wrap=block", "fault=", *FEW],
    *([*FLAT, "workload=lora", f"fault={fault}", *FEW] for fault in PARTLY_TRAINED_LIES),
]
"""Cells of FSDP1 with all their checks."""
PACKED = ["strategy=fsdp_stage3", "workload=lora", "workload.lora_dropout=0", "precision=nf4,nf4-dq"]
if importlib.util.find_spec("bitsandbytes") is not None and torch.__version__ >= "2.13":
    MATRICES.append([*PACKED, "engine=native,fabric-model-parallel"])


def run(matrices, tmp_path_factory):
    out = tmp_path_factory.mktemp("fabric") / "out.json"
    words = [word for matrix in matrices for word in (*EXACT, *matrix, "--")][:-1]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    job = subprocess.run(torchrun(JOB, str(out), *words), env=env, capture_output=True, text=True)
    assert job.returncode == 0, job.stderr[-3000:]
    return json.loads(out.read_text())


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    return run(MATRICES, tmp_path_factory)


@pytest.fixture(scope="module")
def checked(tmp_path_factory):
    return run(CHECKED, tmp_path_factory)


@pytest.fixture(scope="module")
def results(ran):
    return [result for result in ran if "losses" in result and result["axes"]["workload"] == "train"]


def strategy_of(result):
    return result["choices"].get("fabric", {}).get("strategy")


def same(results, tied):
    chosen = [result for result in results if ("model.tie_embeddings" in result["overrides"]) is tied]
    reference, *others = chosen
    assert reference["axes"]["engine"] == "native"
    return reference, others


@pytest.mark.parametrize(("tied", "count"), [(False, 18), (True, 2)])
def test_every_engine_computes_the_same(results, tied, count):
    reference, others = same(results, tied)
    losses = torch.tensor(reference["losses"])
    assert losses.std() > 1e-3, "a flat curve would prove nothing"
    assert len(others) == count
    for result in others:
        assert result["weights"] == reference["weights"], result
        torch.testing.assert_close(torch.tensor(result["losses"]), losses, atol=1e-4, rtol=0, msg=str(result))


def test_fsdp_keeps_half_of_the_parameters_on_each_of_two_ranks(results):
    reference, others = same(results, tied=False)
    flat = [other["num_local"] for other in others if strategy_of(other) == "AnywhereFSDP"]
    assert len(flat) == 6
    assert all(abs(number - reference["num_local"] / 2) < 0.02 * reference["num_local"] for number in flat)


def test_the_record_names_strategy_and_plug_in(results):
    assert {strategy_of(result) for result in results} == {
        None,
        "SingleDeviceStrategy",
        "DDPStrategy",
        "AnywhereFSDP",
        "ModelParallelStrategy",
    }


def test_shards_generate_what_the_native_engine_does(ran):
    native, fabric = (result for result in ran if "tokens" in result)
    assert fabric["axes"]["engine"] == "fabric"
    assert fabric["tokens"] == native["tokens"]
    assert fabric["result"]["checks"]["cache"]["ok"]


def test_packed_weights_survive_sharding(ran):
    finetuned = [result for result in ran if result["axes"]["precision"] in ("nf4", "nf4-dq")]
    if not finetuned:
        pytest.skip("no bitsandbytes, or a torch that shards no bytes")
    for precision in ("nf4", "nf4-dq"):
        curves = [torch.tensor(one["losses"]) for one in finetuned if one["axes"]["precision"] == precision]
        torch.testing.assert_close(curves[0], curves[1], atol=2e-3, rtol=0)


def test_a_strategy_that_does_not_reduce_is_found_out(ran):
    lied = [result for result in ran if result.get("fault") == "no_reduce"]
    assert [result["axes"]["strategy"] for result in lied] == ["ddp", "fsdp_stage2", "fsdp_stage3", "fsdp_stage3"]
    for result in lied:
        failed = {name for name, check in result["checks"].items() if check["ok"] is False}
        assert "gradients_reduced" in failed and failed <= {"gradients_reduced", "function"}


@pytest.mark.slow
def test_no_check_fails_where_a_rank_holds_nothing_of_a_parameter(checked):
    """Flat parameters are cut anywhere: the optimizer has no state for what lies on other ranks alone."""
    healthy = [result for result in checked if result.get("fault", "") is None]
    workloads = ["train", "train", "lora", "lora", "adapter", "adapter_v2"]
    assert [result["axes"]["workload"] for result in healthy] == workloads
    for result in healthy:
        assert {name for name, check in result["checks"].items() if check["ok"] is not True} == set(), result


@pytest.mark.slow
def test_lies_about_flat_parameters_that_train_in_part_are_found_out(checked):
    """What trains may lie on one rank alone, and the frozen matrices beside it have gradients that nobody keeps."""
    lied = {result["fault"]: result for result in checked if result.get("fault") in PARTLY_TRAINED_LIES}
    for fault, check in PARTLY_TRAINED_LIES.items():
        assert lied[fault]["checks"][check]["ok"] is False, lied[fault]


@pytest.mark.parametrize("precision", ["bf16", "bf16-mixed"])
def test_mixing_is_that_of_the_native_engine(precision):
    words = [*SMALL, f"precision={precision}", "measure.steps=3", "measure.warmup_steps=1", "engine=native,fabric"]
    native, fabric = (train.run(make_context(cell)) for cell in make_matrix(*words))
    torch.testing.assert_close(torch.tensor(fabric["losses"]), torch.tensor(native["losses"]), atol=2e-3, rtol=0)
    assert fabric["choices"]["fabric"]["precision"] == {"bf16": "bf16-true", "bf16-mixed": "bf16-mixed"}[precision]
    assert not [name for name, check in fabric["checks"].items() if check["ok"] is False]


def test_the_loss_scale_is_recorded_and_skipped_steps_are_counted():
    context = make_context(make_cell(*SMALL, "precision=fp16-mixed", "engine=fabric"))
    loop = training_loop.TrainingLoop(context, build(context))
    loop.built.scaler._init_scale = 2.0**120
    loop.prepare(range(3))
    for step in range(3):
        loop.step(step)
    choices = loop.choices()
    assert (choices["loss_scale"], choices["num_skipped_steps"]) == (2.0**117, 3)
    assert choices["fabric"]["precision"] == "16-mixed"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["strategy=fsdp_stage3", "devices=1"], "runtime.fabric_combination", "FSDP is only available on GPU"),
        (["workload=lora", "precision=nf4"], "runtime.fabric_combination", "only supported on CUDA GPUs"),
        (
            ["strategy=fsdp_stage3", "devices=1", "engine=fabric-model-parallel", "precision=fp16-mixed"],
            "runtime.fabric_combination",
            "does not support `Fabric(..., precision='16-mixed')`",
        ),
    ],
)
def test_what_fabric_refuses_is_said_in_its_words(words, code, said):
    engine = [] if any(word.startswith("engine") for word in words) else ["engine=fabric"]
    with pytest.raises(Unsupported) as refused:
        build(make_context(make_cell(*SMALL, *words, *engine)))
    assert refused.value.code == code
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["precision=fp32"], "32-true"),
        (["precision=bf16"], "bf16-true"),
        (["precision=bf16-mixed"], "bf16-mixed"),
        (["precision=fp16-mixed", "engine=fabric-model-parallel"], "16-mixed"),
        (["precision=fp8-torchao"], "bf16-true"),
        (["precision=bf16-mixed", "engine=fabric-model-parallel", "strategy=fsdp_stage3", "devices=1"], "32-true"),
    ],
)
def test_fabric_knows_a_precision_by_its_dtypes(words, name):
    assert fabric_precision.options(make_context(make_cell("engine=fabric", *words))) == {"precision": name}


def test_dtypes_that_fabric_has_no_name_for_are_refused():
    cell = make_cell("engine=fabric", "precision=bf16", "precision.param_dtype=float16")
    with pytest.raises(Unsupported, match=r"stores torch\.float16 and computes in torch\.bfloat16") as refused:
        fabric_precision.options(make_context(cell))
    assert refused.value.code == "runtime.fabric_precision"


def test_fsdp_takes_its_own_plug_in_only():
    from lightning.fabric.plugins import MixedPrecision
    from lightning.fabric.strategies import FSDPStrategy

    with pytest.raises(Unsupported, match="can only work with the `FSDPPrecision` plugin"), refusals("combination"):
        FSDPStrategy().precision = MixedPrecision("bf16-mixed", "cpu")


def test_errors_of_others_stay_what_they_are():
    def fail(module):
        raise ValueError("mine")

    from lightning.fabric import Fabric

    fabric = Fabric(accelerator="cpu", devices=1)
    fabric.strategy.setup_module = fail
    with pytest.raises(ValueError, match="mine"), refusals("setup"):
        fabric.setup_module(torch.nn.Linear(1, 1))
