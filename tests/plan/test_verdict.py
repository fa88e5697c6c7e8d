from dataclasses import replace

import pytest

from benchrunner.plan.rules import load_rules
from benchrunner.plan.verdict import Preflight
from samples import CPU, H200, make_cell

RULE = """
- id: no_ddp
  match: {strategy: ddp}
  reason: "{strategy} is not for seq_len={seq_len}"
  evidence: a test
"""


@pytest.fixture
def rules(tmp_path):
    path = tmp_path / "compat.yaml"
    path.write_text(RULE)
    return load_rules(path)


def decide(cell, hardware=H200, rules=(), launch=False, excluded=None, num_cores=2):
    return Preflight(hardware, rules, launch, num_cores).decide(cell, excluded)


def test_a_small_cell_runs():
    verdict = decide(make_cell())
    assert (verdict.verdict, verdict.reason_code, verdict.reason, verdict.flags) == ("run", None, None, [])
    assert verdict.predicted["peak_memory_bytes"] > 0


@pytest.mark.parametrize(("lengths", "others"), [("fixed", False), ("uniform", True)])
def test_what_is_drawn_by_a_seed_is_predicted_by_it(lengths, others):
    preflight, first = Preflight(H200, (), False, 2), None
    times = set()
    for seed in range(3):
        cell = make_cell(model="llama2-7b", workload="lora", leaves={"workload.lengths": lengths, "seed": seed})
        first = first or cell  # cells of one expansion share the sections in which they do not differ
        shared = {name: getattr(first.config, name) for name in (
            "model", "workload", "strategy", "precision", "compile", "activation_checkpointing", "engine", "optimizer",
            "generate", "predict", "measure",
        )}  # fmt: skip
        times.add(preflight.predicted(replace(cell, config=replace(cell.config, **shared)))["step_time_s"])
    assert (len(times) > 1) is others


def test_a_rule_decides_with_reason_and_evidence(rules):
    verdict = decide(make_cell(strategy="ddp"), rules=rules)
    assert (verdict.verdict, verdict.reason_code) == ("unsupported", "rule.no_ddp")
    assert verdict.reason == "ddp is not for seq_len=128"
    assert verdict.evidence == {"rule": "no_ddp", "evidence": "a test"}


def test_probing_runs_what_a_rule_forbids_and_says_so(rules):
    verdict = decide(make_cell(strategy="ddp", leaves={"compat": "probe"}), rules=rules)
    assert (verdict.verdict, verdict.flags) == ("run", ["probe:no_ddp"])


def test_struck_out_comes_before_ruled_out(rules):
    verdict = decide(make_cell(strategy="ddp"), rules=rules, excluded="too dear")
    assert (verdict.verdict, verdict.reason_code, verdict.reason) == ("skipped", "skipped.excluded", "too dear")


def test_a_prediction_alone_comes_before_everything_that_would_run(rules):
    leaves = {"predict.name": "only", "devices": 64}
    verdict = decide(make_cell(strategy="ddp", leaves=leaves), replace(H200, is_present=False), rules, launch=True)
    assert (verdict.verdict, verdict.reason_code) == ("skipped", "skipped.predict_only")
    assert "analytic" in verdict.reason and verdict.predicted["step_time_s"] > 0


def test_a_formula_without_an_answer_says_why():
    leaves = {"predict.name": "only", "predict.formula": "llm-analysis-2023", "predict.tokens": 1e12}
    verdict = decide(make_cell(model="llama2-70b", leaves=leaves))
    assert (verdict.verdict, verdict.reason_code) == ("skipped", "skipped.no_prediction")
    assert "not even one sequence fits" in verdict.reason


def test_more_devices_than_there_are():
    verdict = decide(make_cell(visible_devices=8, strategy="ddp"))
    assert (verdict.reason_code, verdict.reason) == ("skipped.devices", "needs 8 devices a node, 4 visible")


def test_a_machine_that_is_not_here_is_planned_for_but_not_launched():
    elsewhere = replace(H200, is_present=False)
    assert decide(make_cell(), elsewhere).verdict == "run"
    verdict = decide(make_cell(), elsewhere, launch=True)
    assert (verdict.reason_code, "h200-sxm-141gb is not in this machine" in verdict.reason) == ("skipped.devices", True)


LARGE = {
    "model.num_layers": 80,
    "model.d_model": 8192,
    "model.d_ff": 28672,
    "model.num_heads": 64,
    "model.num_kv_heads": 8,
}


def test_weights_beyond_the_device_are_a_predicted_oom_in_gib():
    verdict = decide(make_cell(leaves=LARGE))
    assert (verdict.verdict, verdict.reason_code) == ("skipped", "skipped.predicted_oom")
    assert "GiB a device, the device has 140.4 GiB" in verdict.reason


def test_the_emulated_limit_counts_when_it_is_smaller():
    verdict = decide(make_cell(leaves={"memory_limit_gib": 0.001}))
    assert verdict.reason_code == "skipped.predicted_oom"
    assert "memory_limit_gib is 1.0 MiB" in verdict.reason
    assert decide(make_cell(leaves={"memory_limit_gib": 1000.0})).verdict == "run"


@pytest.mark.parametrize(
    ("axes", "key", "more", "step_bytes"),
    [({}, "measure.steps", 5, 129 * 8), ({"workload": "generate"}, "generate.num_samples", 2, 6 * 8)],
)
def test_data_that_the_window_needs_at_once_must_fit_too(axes, key, more, step_bytes):
    lower = decide(make_cell(**axes), CPU).predicted["lower_bound_bytes"]
    hardware = replace(CPU, memory_bytes=lower + 10_000 * step_bytes)
    assert decide(make_cell(leaves={key: 10_000 - more}, **axes), hardware).verdict == "run"
    verdict = decide(make_cell(leaves={key: 10_001 - more}, **axes), hardware)
    assert verdict.reason_code == "skipped.predicted_oom"
    assert "are drawn before the window and need" in verdict.reason and verdict.reason.endswith(f"take fewer {key}")


def test_ranks_on_a_cpu_share_its_ram():
    hardware = replace(CPU, memory_bytes=3 * 2**20)
    assert decide(make_cell(), hardware).verdict == "run"
    verdict = decide(make_cell(strategy="ddp"), hardware)
    assert verdict.reason_code == "skipped.predicted_oom"
    assert "share of the RAM" in verdict.reason


def test_a_large_model_is_not_tried_on_a_cpu():
    verdict = decide(make_cell(leaves=LARGE), replace(CPU, memory_bytes=2**42))
    assert verdict.reason_code == "skipped.devices"
    assert verdict.reason.startswith("no accelerator is visible, and its steps take at least")
    assert decide(make_cell(leaves={**LARGE, "timeout_s": 1e12}), replace(CPU, memory_bytes=2**42)).verdict == "run"


def test_an_estimate_only_warns():
    cell = make_cell(leaves={"memory_limit_gib": 0.012, "micro_batch_size": 8})
    verdict = decide(cell)
    assert (verdict.verdict, verdict.flags) == ("run", ["memory_tight"])


def test_unknown_memory_forbids_nothing():
    assert decide(make_cell(leaves=LARGE), replace(H200, memory_bytes=None)).verdict == "run"
