import ast
import re

import pytest

from benchrunner.core.paths import CHECKOUT
from benchrunner.report.flags import MEANINGS, explained
from samples import make_cell, make_record, make_row


def said(*flags, **changes):
    return explained(make_row(make_cell(), make_record(make_cell(), flags=flags, **changes)))


def test_a_mark_says_what_the_record_knows_of_it():
    breaks = {"graph_break_reasons": {"disabled function": 3, "print": 1}}
    metrics = {"num_graph_breaks": 4, "step_time_p10_s": 0.09, "step_time_median_s": 0.1, "step_time_p90_s": 0.12}
    checks = {"function": {"ok": None, "note": "the budget has no room for a step"}}
    flags = ("graph_breaks", "unstable", "unverified:function", "probe:nf4_train")
    found = said(*flags, metrics=metrics, checks=checks, ranks=[{"compile": breaks}])
    assert [sentence.partition(": ")[0] for sentence in found] == list(flags)
    assert "4 places" in found[0] and found[0].endswith("disabled function (3 ×); print (1 ×)")
    assert "90 to 120 ms, 30 % of the median" in found[1]
    assert found[2].endswith("the budget has no room for a step")
    assert "the rule nf4_train" in found[3]


def test_a_tight_cell_says_what_its_allocator_needs_where_that_was_replayed():
    replayed, summed = (said("memory_tight", predicted=one)[0] for one in ({"least_memory_bytes": 142 * 2**30}, {}))
    assert "the 142 GiB that its allocator cannot do without" in replayed and "its predicted peak is near" in summed


def test_a_mark_says_how_often_and_why():
    metrics = {"num_alloc_retries": 3, "num_recompiles": 2}
    ranks = [{"clock_event_reasons": ["sw_power_cap"]}, {"clock_event_reasons": ["hw_slowdown", "sw_power_cap"]}]
    retried, recompiled, throttled = said("alloc_retries", "recompiled", "throttled", metrics=metrics, ranks=ranks)
    assert "tried again 3 times" in retried and "2 frames were compiled" in recompiled
    assert throttled.endswith("(hw_slowdown, sw_power_cap)")
    assert "no cause known" in said("throttled", ranks=[{}])[0]


def test_the_most_frequent_reasons_of_graph_breaks_are_said():
    reasons = {"a": 1, "b": 4, "c": 2, "d": 3}
    (found,) = said("graph_breaks", metrics={}, ranks=[{"compile": {"graph_break_reasons": reasons}}])
    assert found.startswith("graph_breaks: some places") and found.endswith(": b (4 ×); d (3 ×); c (2 ×)")
    for compiled in ({"compile": {}}, {}):
        (found,) = said("graph_breaks", metrics={"num_graph_breaks": 2}, ranks=[compiled])
        assert "2 places" in found and found.endswith("eager code runs")


@pytest.mark.parametrize("missing", ["step_time_p10_s", "step_time_median_s", "step_time_p90_s"])
def test_a_spread_is_only_said_where_all_of_it_is_known(missing):
    metrics = {"step_time_p10_s": 0.09, "step_time_median_s": 0.1, "step_time_p90_s": 0.12} | {missing: None}
    assert said("unstable", metrics=metrics) == ["unstable: its steps differ in time by more than 5 %, or drift"]


def test_a_flag_of_the_plan_is_explained_before_there_is_a_record():
    row = make_row(make_cell(), flags=["unverified:function", "throttled", "graph_breaks"])
    assert len(explained(row)) == 3


@pytest.mark.parametrize("flag", sorted(MEANINGS))
def test_a_mark_is_explained_where_nothing_more_is_known(flag):
    (found,) = said(flag, metrics={}, checks={}, ranks=[])
    assert len(found) > len(flag) + 10 and "None" not in found


def test_checks_that_an_error_ended_say_so():
    ended = {"rank": 1, "state": "error", "phase": "check", "error": "torch.AcceleratorError", "steps": 12, "exit": 1}
    asked = {"function": {"ok": None, "note": "no tolerance"}}
    where = {"ranks": [ended | {"rank": 0, "error": None}, ended]}
    start = "unverified:function: the check that is to decide here did not: "
    assert said("unverified:function", checks={}, evidence=where) == [
        f"{start}torch.AcceleratorError ended the checks of rank 1 before it"
    ]
    assert said("unverified:function", checks=asked, evidence=where) == [f"{start}no tolerance"]
    where = {"ranks": [ended | {"phase": "teardown"}]}
    assert said("unverified:function", checks={}, evidence=where) == [f"{start}it was not asked"]


def test_an_unknown_flag_stands_alone():
    assert said("from a\nlater version") == ["from a later version"]


def test_every_flag_that_is_documented_or_set_has_a_meaning():
    documented = re.findall(r"[Ff]lag\s+`([a-z_]+)", (CHECKOUT / "docs/metrics.md").read_text())
    found = set(documented)
    for path in map(CHECKOUT.joinpath, ("src/benchrunner/outcome/metrics.py", "src/benchrunner/plan/verdict.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("flags.add", "flags.append"):
                found.add(ast.literal_eval(node.args[0]))
    assert {"unstable", "throttled", "memory_tight"} < found
    assert found <= set(MEANINGS)
