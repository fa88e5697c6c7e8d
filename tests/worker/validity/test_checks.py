"""Every planted lie fails the check that is there for it; healthy cells fail none."""

import json
import re

import pytest
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

from benchrunner.worker.axes import activation_checkpointing
from benchrunner.worker.steps.training_loop import TrainingLoop
from benchrunner.worker.validity import checks
from benchrunner.worker.validity.checks import CHECKS
from benchrunner.worker.validity.finding import Finding
from benchrunner.worker.workloads import train
from cells import make_cell, make_context
from judged import failed, run_job

SMALL = "model.num_layers=2 model.vocab_size=256 seq_len=32 measure.steps=2 measure.warmup_steps=1"
ALL = "strategy=single,ddp,fsdp_stage2,fsdp_stage3"
FSDP = "strategy=fsdp_stage2,fsdp_stage3"

HEALTHY = [
    f"|{SMALL} {ALL} precision=bf16-mixed activation_checkpointing=selective",
    f"|{SMALL} strategy=ddp,fsdp_stage2 precision=fp32 activation_checkpointing=full",
    f"|{SMALL} strategy=fsdp_stage2 activation_checkpointing=selective activation_checkpointing.every=per_op",
    f"|{SMALL} strategy=ddp,fsdp_stage3 global_batch_size=8 optimizer=sgd",
    f"|{SMALL} strategy=fsdp_stage3 precision=fp8-torchao activation_checkpointing=full",
    f"|{SMALL} strategy=ddp workload=lora precision=nf4",
    f"|{SMALL} strategy=ddp workload=adapter workload.adapter_start_layer=1 activation_checkpointing=full"
    " optimizer=sgd",
    f"|{SMALL} strategy=fsdp_stage3 workload=lora model.parallel_residual=true activation_checkpointing=full"
    " workload.lengths=uniform global_batch_size=8",
]
MANY = [
    f"|{SMALL} {ALL} precision=fp32,bf16,bf16-mixed,fp8-torchao activation_checkpointing=none,full,selective",
    f"|{SMALL} {ALL} model.dropout=0.1 attention=auto,explicit",
    f"|{SMALL} strategy=ddp,fsdp_stage3 global_batch_size=16 strategy.accumulation_sync=last,every",
    f"|{SMALL} strategy=single,ddp workload=lora,adapter_v2 precision=fp8-torchao workload.adapter_start_layer=1",
    f"|{SMALL} strategy=fsdp_stage3 precision=bf16-mixed,fp16-mixed strategy.mixed_precision_by=policy,autocast",
    f"|{SMALL} strategy=single,ddp workload=train,lora workload.lengths=uniform,alpaca global_batch_size=16",
]
LIES = {
    "gradients_reduced": [f"no_reduce|{SMALL} precision=fp32 strategy=ddp,fsdp_stage3"],
    "sharded": [f"no_shard|{SMALL} precision=bf16 {FSDP}"],
    "recompute": [f"no_recompute|{SMALL} strategy=single,fsdp_stage3 activation_checkpointing=selective"],
    "precision": [
        f"no_convert|{SMALL} precision=bf16-mixed strategy=single,fsdp_stage3",
        f"no_convert|{SMALL} precision=fp8-torchao",
        f"no_convert|{SMALL} workload=lora precision=nf4",
    ],
    "first_loss": [f"zero_norm|{SMALL} strategy=single,fsdp_stage3"],
    "trains": [f"frozen|{SMALL} strategy=ddp,fsdp_stage3"],
    "shape": [f"wrong_shape|{SMALL} strategy=single,fsdp_stage2 activation_checkpointing=full"],
    "work": [f"short_batch|{SMALL} strategy=ddp,fsdp_stage3", f"half_sequence|{SMALL} strategy=single,fsdp_stage3"],
    "data": [
        f"same_data,same_after_first|{SMALL} strategy=ddp,fsdp_stage3",
        f"same_batch,one_micro_batch|{SMALL} global_batch_size=2",
    ],
    "formats": [
        f"other_reduction|{SMALL} strategy=ddp,fsdp_stage2 precision=bf16-mixed",
        f"other_storage|{SMALL} strategy=ddp precision=bf16-mixed",
        f"other_recipe|{SMALL} precision=fp8-torchao precision.recipe=tensorwise,rowwise",
        f"other_packing|{SMALL} workload=lora precision=nf4,nf4-dq",
    ],
    "mode": [
        f"eval_mode|{SMALL} workload=train,adapter_v2",
        f"no_dropout|{SMALL} model.dropout=0.1",
        f"same_drops|{SMALL} strategy=ddp,fsdp_stage3 model.dropout=0.1",
        f"same_drops|{SMALL} workload=lora",
    ],
    "labels": [f"other_mixing|{SMALL} {FSDP} precision=bf16-mixed", f"other_kernel|{SMALL} attention=math,flash"],
    "steps": [f"fewer_steps|{SMALL} strategy=single,ddp measure.steps=4"],
}
LIES["sharded"].append(f"one_unit|{SMALL} {FSDP}")
LIES["gradients_reduced"].append(f"other_sync|{SMALL} strategy=ddp,fsdp_stage3 global_batch_size=8")
LIES["data"].append(f"few_tokens,half_lengths|{SMALL} strategy=ddp workload.lengths=uniform")
LIES["precision"].append(f"kept_weights|{SMALL} workload=lora,adapter workload.adapter_start_layer=1 precision=nf4")
LIES["formats"].append(f"coarse_loss|{SMALL} strategy=single,fsdp_stage3 precision=bf16")
LIES["work"].append(f"claimed_twice|{SMALL} strategy=single,ddp")
LIES["recompute"].append(f"kept_products|{SMALL} activation_checkpointing=full")
LIES["recompute"].append(f"other_checkpointing|{SMALL} activation_checkpointing=full")
ALSO = {
    "zero_norm": {"trains", "function", "optimizer"},
    "frozen": {"function"},
    "no_reduce": {"function"},
    "no_recompute": {"work"},
    "wrong_shape": {"work", "function"},
    "other_checkpointing": {"work"},
    "half_sequence": {"function"},
    "short_batch": {"data", "function"},
    "no_dropout": {"labels"},
    "other_packing": {"function"},
    "other_recipe": {"function"},
    "no_convert": {"labels"},
    "other_storage": {"labels"},
    "half_lengths": {"work"},
    "kept_weights": {"function"},
}
"""Norms of zero are dead for other checks too, and work left out is work left out; the table names the first."""
FIRST = {"short_batch": "data"}


def broken(result):
    return {name: check for name, check in result["checks"].items() if "itself failed" in check.get("note", "")}


def shortened(case):
    """The lie of a case on the last cell of its little matrix alone."""
    fault, _, words = case.partition("|")
    return f"{fault}|{re.sub(r'=[^ ]*,', '=', words)}"


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """One process group of two ranks runs the healthy cells and a lie a check: by rank."""
    return run_job([*HEALTHY, *(shortened(cases[0]) for cases in LIES.values())], tmp_path_factory)


def test_no_healthy_cell_fails_a_check(results):
    healthy = [result for rank in results for result in rank if not result["fault"]]
    assert len(healthy) == 2 * 13
    assert_healthy(healthy)


@pytest.mark.slow
def test_no_cell_of_the_matrix_fails_a_check(tmp_path_factory):
    assert_healthy([result for rank in run_job(MANY, tmp_path_factory) for result in rank])


@pytest.mark.slow
def test_each_lie_fails_its_check_under_every_strategy(tmp_path_factory):
    results = run_job([case for cases in LIES.values() for case in cases], tmp_path_factory)
    assert sum(map(len, results)) > 2 * sum(map(len, LIES.values()))
    for check in LIES:
        assert_caught(results, check)


def assert_healthy(found):
    for result in found:
        assert failed(result) == set() and broken(result) == {}, result


def test_what_applies_is_checked(results):
    by_strategy = {result["axes"]["strategy"]: result["checks"] for result in results[0] if not result["fault"]}
    judged = {
        strategy: {name for name, check in checks.items() if check["ok"]} for strategy, checks in by_strategy.items()
    }
    everywhere = {"shape", "first_loss", "precision", "formats", "mode", "work", "data", "trains", "recompute"}
    everywhere |= {"labels", "steps"}
    everywhere |= {"compiled", "function", "optimizer"}  # nothing is compiled under eager, and that is judged
    assert judged["single"] == everywhere
    assert judged["ddp"] == everywhere | {"gradients_reduced"}
    assert judged["fsdp_stage2"] == judged["fsdp_stage3"] == everywhere | {"gradients_reduced", "sharded"}


@pytest.mark.parametrize("check", LIES)
def test_each_lie_fails_its_check(results, check):
    assert_caught(results, check)


def assert_caught(results, check):
    words = [case.partition("|")[0] for case in LIES[check]]
    kinds = {kind for text in words for kind in text.split(",")}
    lied = [result for rank in results for result in rank if result["fault"] in kinds]
    assert lied
    for result in lied:
        found = failed(result)
        assert check in found and found <= {check} | ALSO.get(result["fault"], set()), result
        assert next(name for name in result["checks"] if name in found) == FIRST.get(result["fault"], check)
        assert result["checks"][check]["expected"] != result["checks"][check]["observed"]


@pytest.mark.parametrize("every", ["1/1", "per_op"])
def test_blocks_that_recompute_more_or_less_than_the_label_says_are_found_out(monkeypatch, every):
    """Eagerly no call tells a kept product from one that is computed again."""
    words = [*SMALL.split(), "activation_checkpointing=selective", f"activation_checkpointing.every={every}"]
    assert train.run(make_context(make_cell(*words)))["checks"]["recompute"]["ok"] is True
    how = {} if every == "per_op" else {"context_fn": activation_checkpointing.keep_products}

    def otherwise(block, implementation, **options):
        return checkpoint_wrapper(block, implementation, preserve_rng_state=options["preserve_rng_state"], **how)

    monkeypatch.setattr(activation_checkpointing, "checkpoint_wrapper", otherwise)
    check = train.run(make_context(make_cell(*words)))["checks"]["recompute"]
    assert check["ok"] is False and "keep their products" in check["expected"]


@pytest.mark.slow
def test_compiled_cells_and_recompilation(tmp_path_factory):
    cases = [
        f"|{SMALL} compile=inductor strategy=single,ddp,fsdp_stage3 activation_checkpointing=none,full",
        f"|{SMALL} compile=inductor compile.scope=model strategy=single,ddp,fsdp_stage2",
        f"recompile,other_compiler|{SMALL} compile=inductor strategy=single,ddp",
        f"half_sequence,eval_mode|{SMALL} compile=inductor compile.scope=model",
        f"no_recompute,no_reduce|{SMALL} compile=inductor strategy=ddp activation_checkpointing=full",
    ]
    expected = {
        "": set(),
        "recompile": {"compiled"},
        "other_compiler": {"compiled"},
        "half_sequence": {"work", "function"},
        "eval_mode": {"mode"},
        "no_recompute": {"recompute", "work"},
        "no_reduce": {"gradients_reduced", "function"},
    }
    for result in [result for rank in run_job(cases, tmp_path_factory) for result in rank]:
        assert failed(result) == expected[result["fault"]] and broken(result) == {}, result
        assert result["checks"]["compiled"]["ok"] is ("compiled" not in expected[result["fault"]])


def test_a_check_that_raises_says_so_and_is_no_verdict(monkeypatch):
    def fail(facts):
        raise ZeroDivisionError("of all things")

    monkeypatch.setitem(CHECKS, "shape", fail)
    checks = train.run(make_context(make_cell(*SMALL.split())))["checks"]
    assert checks["shape"]["ok"] is None and "ZeroDivisionError: of all things" in checks["shape"]["note"]
    assert checks["work"]["ok"] is True


def test_the_check_phase_shows_and_the_result_is_json():
    context = make_context(make_cell(*SMALL.split()))
    result = train.run(context)
    assert context.status.phase == "check"
    assert json.loads(json.dumps(result["checks"], allow_nan=False)) == result["checks"]


def test_the_result_is_on_disk_before_the_checks_begin(monkeypatch):
    context, seen = make_context(make_cell(*SMALL.split())), []

    def look(facts):
        seen.append(json.loads(context.path.read_text()))
        return Finding(ok=True)

    monkeypatch.setitem(CHECKS, "shape", look)
    train.run(context)
    assert seen[0]["phase"] == "check" and seen[0]["result"]["step_times_s"]


def test_that_values_are_dropped_anew_is_asked_with_few_micro_batches(monkeypatch):
    """What is left of the budget is for the function: it asks with all of them."""
    context, asked = make_context(make_cell(*SMALL.split(), "workload=lora", "global_batch_size=32")), []

    def counting(loop, batches, *more, accumulate=TrainingLoop.accumulate, **others):
        asked.append(len(batches)) if context.status.phase == "check" else None
        return accumulate(loop, batches, *more, **others)

    monkeypatch.setattr(TrainingLoop, "accumulate", counting)
    mode = train.run(context)["checks"]["mode"]
    assert mode["ok"] is True and len(asked) > 2
    assert sum(count > 2 for count in asked) == 1, asked  # the first question of `function`


def test_what_was_found_is_on_disk_when_a_later_check_is_the_end(monkeypatch):
    class End(BaseException):
        pass

    def end(facts):
        raise End

    context = make_context(make_cell(*SMALL.split()))
    monkeypatch.setitem(CHECKS, "work", end)
    with pytest.raises(End):
        train.run(context)
    assert json.loads(context.path.read_text())["result"]["checks"]["shape"]["ok"] is True


def test_a_finding_has_a_note_only_when_there_is_one():
    assert Finding(ok=True, expected=1, observed=1).as_dict() == {"ok": True, "expected": 1, "observed": 1}
    assert Finding(ok=None, note="why").as_dict()["note"] == "why"


def test_a_check_that_breaks_the_device_ends_the_cell_among_its_checks(monkeypatch):
    def broken_device(*_):
        raise RuntimeError("CUDA error: device-side assert triggered")

    monkeypatch.setitem(CHECKS, "data", broken_device)
    monkeypatch.setattr(checks, "synchronise", broken_device)
    context = make_context(make_cell(*SMALL.split()))
    with pytest.raises(RuntimeError, match="device-side assert"):
        train.run(context)
    assert context.status.phase == "check" and len(context.status.result["step_times_s"]) == 2
