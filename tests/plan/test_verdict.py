from dataclasses import replace

import pytest

from benchrunner.core.units import GIB
from benchrunner.plan.micro_batches import typical_sizes
from benchrunner.plan.predict import cpu_time_s
from benchrunner.plan.rules import load_rules
from benchrunner.plan.verdict import Preflight, Verdict, is_audited
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


@pytest.mark.parametrize(
    ("axes", "leaves"),
    [
        ({"precision": "fp32"}, {}),
        ({"activation_checkpointing": "full"}, {}),
        ({"optimizer": "sgd"}, {}),
        ({}, {"attention": "explicit"}),
        ({}, {"memory_limit_gib": 1.0}),
    ],
)
def test_cells_of_other_work_are_predicted_apart(axes, leaves):
    preflight = Preflight(H200, (), False, 2)
    usual = make_cell(model="llama2-7b", workload="lora")
    other = make_cell(model="llama2-7b", workload="lora", leaves=leaves, **axes)
    assert preflight.predicted(usual) == preflight.predicted(usual) != preflight.predicted(other)


def test_more_steps_draw_other_lengths():
    preflight = Preflight(H200, (), False, 2)
    cell = make_cell(model="llama2-7b", workload="lora", leaves={"workload.lengths": "uniform"})
    longer = replace(cell, config=replace(cell.config, measure=replace(cell.config.measure, steps=300)))
    assert preflight.predicted(cell) != preflight.predicted(longer)


def test_a_rule_decides_with_reason_and_evidence(rules):
    verdict = decide(make_cell(strategy="ddp"), rules=rules)
    assert (verdict.verdict, verdict.reason_code) == ("unsupported", "rule.no_ddp")
    assert verdict.reason == "ddp is not for seq_len=128"
    assert verdict.evidence == {"rule": "no_ddp", "evidence": "a test"}
    assert verdict.predicted["step_time_s"] > 0


def test_probing_runs_what_a_rule_forbids_and_says_so(rules):
    verdict = decide(make_cell(strategy="ddp", leaves={"compat": "probe"}), rules=rules)
    assert (verdict.verdict, verdict.flags) == ("run", ["probe:no_ddp"])
    verdict = decide(make_cell(8, strategy="ddp", leaves={"compat": "probe"}), rules=rules)
    assert (verdict.reason_code, verdict.flags) == ("skipped.devices", ["probe:no_ddp"])
    assert verdict.predicted["step_time_s"] > 0


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
    assert "not even one sequence fits" in verdict.predicted["refused"]


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
    assert "on 2 CPU cores, longer than timeout_s=" in verdict.reason
    alone = decide(make_cell(leaves=LARGE), replace(CPU, memory_bytes=2**42), num_cores=1)
    assert "on 1 CPU core, longer" in alone.reason
    hours, twice = (float(one.reason.split("at least ")[1].split(" h on ")[0]) for one in (verdict, alone))
    least_s = cpu_time_s(make_cell(leaves=LARGE).config, typical_sizes(make_cell(leaves=LARGE)), 2)
    assert (hours, twice) == (pytest.approx(least_s / 3600, abs=0.05), pytest.approx(2 * hours, abs=0.2))
    hurried = {"timeout_s": 1e-6}
    assert decide(make_cell(leaves=hurried), CPU).reason_code == "skipped.devices"
    assert (
        decide(make_cell(leaves=hurried, workload="parity"), CPU).verdict == "run"
    )  # on a small scale, whatever it is of
    assert decide(make_cell(leaves={**LARGE, "timeout_s": 1e12}), replace(CPU, memory_bytes=2**42)).verdict == "run"


def test_an_estimate_only_warns():
    cell = make_cell(leaves={"memory_limit_gib": 0.012, "micro_batch_size": 8})
    verdict = decide(cell)
    assert (verdict.verdict, verdict.flags) == ("run", ["memory_tight"])


PREDICTED = {"method": "analytic", "fit": "does_not_fit", "peak_memory_bytes": 12 * GIB, "capacity_bytes": 10 * GIB}


def judged(fit, every=1, **leaves):
    """The verdict on a cell that is predicted so, and is run or not for an audit."""
    cell = make_cell(leaves={"predict.audit_every": every, "predict.skip_oom": True} | leaves)
    passed = Verdict(flags=["probe:x"], predicted=PREDICTED | {"fit": fit, "margin": 0.04})
    return Preflight(H200, (), False, 2).judge_memory(cell, passed)


@pytest.mark.parametrize(
    ("fit", "flags"),
    [("fits", []), ("fits_with_retries", ["memory_tight"]), ("tight", ["memory_tight"]),
     ("does_not_fit", ["memory_tight", "oom_audit"])],
)  # fmt: skip
def test_what_may_not_fit_is_marked_and_an_audit_too(fit, flags):
    found = judged(fit)
    assert (found.verdict, found.flags) == ("run", ["probe:x", *flags])
    assert found.predicted["peak_memory_bytes"] == 12 * GIB
    assert judged(fit, **{"predict.skip_oom": False}).flags == ["probe:x", *flags[:1]]


def test_what_is_predicted_not_to_fit_is_skipped_where_that_is_asked_for():
    found = judged("does_not_fit", every=10**9)
    assert (found.verdict, found.reason_code, found.flags) == ("skipped", "skipped.predicted_oom", ["probe:x"])
    assert "analytic to need 12.0 GiB a device, give or take 4%, where 10.0 GiB are left for it" in found.reason
    assert found.predicted["margin"] == 0.04
    assert judged("tight", every=10**9).verdict == "run"


def test_one_in_so_many_is_audited_by_its_id():
    cell = make_cell(leaves={"predict.audit_every": 3})
    audited = [number for number in range(40) if is_audited(replace(cell, cell_id=f"{number:x}"))]
    assert audited == list(range(0, 40, 3))


def test_a_dry_run_is_to_say_whether_a_cell_fits():
    leaves = {"memory_limit_gib": 0.012, "micro_batch_size": 8, "predict.name": "dry_run"}
    assert decide(make_cell(leaves=leaves)).flags == []


SEARCHES = """
- id: no_search
  match: {micro_batch_search: max}
  reason: "nothing is searched here"
  evidence: a test
- id: no_ddp
  match: {strategy: ddp}
  reason: "no"
  evidence: a test
"""


def test_a_search_is_decided_by_the_rules_about_searches_alone(tmp_path):
    path = tmp_path / "compat.yaml"
    path.write_text(SEARCHES)
    preflight = Preflight(H200, load_rules(path), False, 2)
    search, best = (make_cell(strategy="ddp", leaves={"micro_batch_size": kind}) for kind in ("max", "best"))
    assert preflight.decide_search(search, None).reason_code == "rule.no_search"
    assert preflight.decide_search(best, None) is None
    assert preflight.decide_search(search, "too dear").reason == "too dear"
    probing = make_cell(leaves={"micro_batch_size": "max", "compat": "probe"})
    assert preflight.decide_search(probing, None) is None


def test_unknown_memory_forbids_nothing():
    assert decide(make_cell(leaves=LARGE), replace(H200, memory_bytes=None)).verdict == "run"
