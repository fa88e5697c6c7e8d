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


@pytest.mark.parametrize("flag", sorted(MEANINGS))
def test_a_mark_is_explained_where_nothing_more_is_known(flag):
    (found,) = said(flag, metrics={}, checks={}, ranks=[])
    assert len(found) > len(flag) + 10 and "None" not in found


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
