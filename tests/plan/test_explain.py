from dataclasses import replace

import pytest

from benchrunner.core.errors import UsageError
from benchrunner.plan.explain import explain, find_cell, rank
from benchrunner.plan.plan import Plan
from benchrunner.plan.predict import predict
from benchrunner.plan.search import decide_search
from benchrunner.plan.verdict import Preflight
from samples import CPU, H200, make_cell, plan_cell

FAST = replace(H200, memory_bandwidth_bytes_per_second=4.8e12)


def planned(verdict="run", **axes):
    cell = make_cell(**axes)
    return replace(plan_cell(cell, verdict), predicted=predict(cell, FAST))


@pytest.mark.parametrize("workload", ["train", "parity"])
def test_the_terms_are_the_prediction(workload):
    one = planned(visible_devices=2, strategy="fsdp_stage3", workload=workload)
    found = explain(one, FAST)
    assert sum(found.memory_bytes.values()) == pytest.approx(one.predicted["peak_memory_bytes"], abs=16)
    assert sum(found.step_s.values()) == pytest.approx(one.predicted["step_time_s"])
    assert found.outside_bytes > 0
    waits_s = found.step_s.pop("host")
    device_s = sum(found.step_s.values())
    assert waits_s + device_s == pytest.approx(found.ideal_s["host"] / found.efficiencies["host"])
    for name, seconds in found.step_s.items():
        assert seconds == pytest.approx(found.ideal_s[name] / found.efficiencies[name])
    assert explain(one, CPU).outside_bytes == 0


def test_a_cpu_has_no_workspaces_and_no_time():
    found = explain(planned(), CPU)
    assert "workspaces" in explain(planned(), FAST).memory_bytes and "workspaces" not in found.memory_bytes
    assert found.step_s == found.ideal_s == {}


def test_the_time_is_of_samples_of_different_lengths():
    lengths = {"workload.lengths": "uniform", "workload.min_length": 8, "global_batch_size": 16}
    one = planned(leaves=lengths | {"workload.loss_chunk_tokens": 16})
    found = explain(one, FAST)
    assert sum(found.step_s.values()) == pytest.approx(one.predicted["step_time_s"])
    device_s = sum(seconds for name, seconds in found.step_s.items() if name != "host")
    host_s = found.ideal_s["host"] / found.efficiencies["host"]
    assert max(device_s, host_s) == pytest.approx(one.predicted["step_time_s"])


FORMULA = {"predict.formula": "llm-analysis-2023"}


@pytest.mark.parametrize("workload", ["train", "forward", "generate"])
def test_the_terms_of_a_formula_are_its_own(workload):
    one = planned(workload=workload, leaves=FORMULA)
    found = explain(one, FAST)
    assert sum(found.memory_bytes.values()) == pytest.approx(one.predicted["peak_memory_bytes"], abs=4)
    assert "weight" in found.memory_bytes and not found.step_s and not found.phase
    assert found.parts["step_s"] == one.predicted["step_time_s"]
    assert ("prefill_mlp_s" in found.parts) is (workload != "train")


def test_the_terms_of_a_search_are_those_of_its_first_probe():
    search = decide(make_cell(leaves={"micro_batch_size": "max", "memory_limit_gib": 0.7}))
    size = search.predicted["micro_batch_size"]
    found = explain(search, FAST)
    assert size > 1
    assert found.remarks == (f"What is explained is the first probe of the search, micro_batch_size={size}.",)
    assert sum(found.memory_bytes.values()) == pytest.approx(search.predicted["peak_memory_bytes"], abs=16)
    assert sum(found.step_s.values()) == pytest.approx(search.predicted["step_time_s"])


def decide(search):
    verdict = decide_search(search, None, Preflight(FAST, [], False, 2))
    return replace(plan_cell(search, verdict.verdict), predicted=verdict.predicted)


def test_the_peak_of_a_dry_run_is_not_the_sum():
    one = planned()
    [remark] = explain(replace(one, predicted=one.predicted | {"method": "dry_run+analytic"}), FAST).remarks
    assert remark.startswith("The peak is that of the dry run.")
    assert not explain(one, FAST).remarks


@pytest.mark.parametrize(
    ("one", "why"),
    [
        (planned(leaves={"predict.name": "off"}), "predict=off predicts nothing .*; predict=analytic"),
        (planned(workload="lora", leaves=FORMULA), ".* no answer: .* not workload=lora; predict.formula=own has one"),
        (replace(planned(), predicted=None, reason="struck out"), "nothing is predicted of .*: struck out"),
    ],
)
def test_what_is_not_predicted_has_no_terms(one, why):
    with pytest.raises(UsageError, match=f"^--explain: {why}"):
        explain(one, FAST)


def test_a_cell_is_found_by_number_id_or_slug():
    cells = [planned(), planned(strategy="ddp")]
    plan = Plan(cells=cells, hardware=H200, sweep_name="cli", arguments=[], created_at="")
    second = cells[1].cell
    assert find_cell(plan, "1") is cells[0]
    for name in ("2", second.cell_id, second.cell_id[:8], second.slug):
        assert find_cell(plan, name) is cells[1]
    with pytest.raises(UsageError, match="no cell of the plan; give a number from 1 to 2"):
        find_cell(plan, "zzz")
    for number in ("0", "3"):
        with pytest.raises(UsageError, match=f"--explain {number}: no cell of the plan"):
            find_cell(plan, number)
    with pytest.raises(UsageError, match="2 cells of the plan begin so"):
        find_cell(plan, "")


def test_a_number_beyond_the_table_may_be_the_beginning_of_an_id():
    cells = [planned(leaves={"seed": seed}) for seed in range(40)]
    plan = Plan(cells=cells, hardware=H200, sweep_name="cli", arguments=[], created_at="")
    named = next(one for one in cells if one.cell.cell_id[:4].isdigit() and int(one.cell.cell_id[:4]) > 40)
    assert find_cell(plan, named.cell.cell_id[:4]) is named


def test_the_best_that_fits_comes_first():
    slow, fast = planned(), planned(compile="inductor", leaves={"micro_batch_size": 8})
    ruled_out = planned("unsupported", leaves={"micro_batch_size": 64})
    too_large = planned(leaves={"memory_limit_gib": 0.62, "micro_batch_size": 4})
    assert rank([slow, ruled_out, too_large, fast], "tokens/s") == [fast, slow]
    assert rank([slow, fast], "mfu") == [fast, slow]
    alone, pair = plan_cell(make_cell()), plan_cell(make_cell(visible_devices=2, strategy="ddp"))
    values = [(alone, 0.4, 0.3), (pair, 0.3, 0.2), (plan_cell(make_cell(leaves={"seed": 7})), None, None)]
    by_all = [
        replace(one, predicted={"fit": "fits", "mfu": mfu, "tokens_per_second_per_device": rate})
        for one, mfu, rate in values
    ]
    assert rank(by_all, "mfu") == by_all[:2], "what is not known is no rank"
    assert rank(by_all, "tokens/s") == [by_all[1], by_all[0]], "of all devices together"
    asked = replace(by_all[0], verdict="skipped", reason_code="skipped.predict_only")
    assert rank([asked, by_all[1]], "mfu") == [asked, by_all[1]]
    with pytest.raises(UsageError, match="choose one of tokens/s, mfu"):
        rank([slow], "joy")
