"""`bench compare`: exit codes, refusals and files."""

import json
import sys
from argparse import Namespace
from itertools import chain
from types import SimpleNamespace

import pytest

from benchrunner.cli.arguments import parse
from benchrunner.cli.commands.compare import _options, _pairs_plan
from benchrunner.compare import gate, pairs
from benchrunner.compare.gate import GateOptions
from benchrunner.core.errors import UsageError
from fake_sweeps import cells
from sides import timed, write_sweep

TIGHT = (1.0, 1.001, 0.999)


@pytest.fixture
def sweeps(tmp_path):
    """Make a base and a new sweep of three cells; the new one is slower by a factor in its first cell."""

    def make(factor=1.0, num=3):
        made = []
        for name, by in (("base", 1.0), ("new", factor)):
            planned = cells(3)
            records = [timed(one.cell, [t * (1.0 if n else by) for t in TIGHT[:num]]) for n, one in enumerate(planned)]
            made.append(str(write_sweep(tmp_path / name, planned, list(chain.from_iterable(records))).root))
        return made

    return make


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "compare needs two sweeps, BASE and NEW, got 0"),
        (["."], "needs two sweeps, BASE and NEW, got 1"),
        ([".", "nowhere"], "nowhere: no such directory"),
        ([".", "."], "not a sweep"),
        ([".", ".", "--metric", "tmie"], r"--metric: 'tmie' is not one of time, .*did you mean time"),
        ([".", ".", "--min-effect", "3"], "--min-effect: '3' is no share such as 3%"),
        ([".", ".", "--min-effect", "x%"], "is no share"),
        ([".", ".", "--pairs", "2"], "--pairs: '2' is no number of pairs, at least 3"),
        ([".", ".", "--stop-after", "x"], "--stop-after: 'x' is no duration"),
        (
            [".", ".", "--base-bench", "/no/bench"],
            "--base-bench: '/no/bench' begins with no program that can be executed",
        ),
        ([".", ".", "--base-bench", "/etc/passwd -x"], "--base-bench: '/etc/passwd -x' begins with no program"),
        ([".", ".", "--new-bench", ""], "--new-bench: '' begins with no program"),
        ([".", ".", "--new-bench", "'"], "--new-bench: cannot read .*No closing quotation"),
    ],
)
def test_what_is_wrong_is_refused(refused, words, message):
    refused(["compare", *words], message)


@pytest.mark.parametrize(
    ("factor", "flags", "code", "verdict"),
    [
        (1.0, [], 0, "PASS"),
        (1.05, [], 3, "FAIL"),
        (1.05, ["--min-effect", "20%"], 0, "PASS"),
        (1.0295, [], 0, "INCONCLUSIVE"),
        (1.0295, ["--strict"], 3, "INCONCLUSIVE"),
        (1.0, ["--strict"], 0, "PASS"),
        (0.9, ["--strict"], 0, "PASS"),
    ],
)
def test_the_exit_code_is_the_verdict(bench, sweeps, factor, flags, code, verdict):
    got, out, _, _ = bench("compare", *sweeps(factor), *flags)
    assert (got, out.splitlines()[-1].partition(":")[0]) == (code, verdict)


def test_every_form_is_written(bench, sweeps, tmp_path):
    _, out, _, _ = bench("compare", *sweeps(1.05), "--json", "--junit", "x.xml", "--markdown", "x.md")
    assert json.loads(out)["cells"][0]["verdict"] == "FAIL"
    assert 'failures="1"' in (tmp_path / "x.xml").read_text()
    assert "**FAIL" in (tmp_path / "x.md").read_text()


def test_cells_that_look_slower_are_run_again_by_the_programs_that_are_named(bench, sweeps):
    code, _, err, _ = bench("compare", *sweeps(1.05), "--confirm", "--base-bench", "false")
    assert (code, "pair 1 of at most 5" in err, "cannot be run again" in err) == (1, True, True)


def test_nothing_is_run_again_where_nothing_looks_slower(bench, sweeps):
    assert bench("compare", *sweeps(), "--confirm", "--base-bench", "false")[0] == 0


@pytest.mark.parametrize(
    ("words", "metric", "share"),
    [
        ([], "time", GateOptions().min_effect),
        (["--metric", "memory"], "memory", GateOptions().min_effect),
        (["--min-effect", "12.5%"], "time", 0.125),
        (["--metric", "compile", "--min-effect", "99%"], "compile", 0.99),
    ],
)
def test_what_is_compared_and_from_where_on(words, metric, share):
    found = _options(parse("compare", words))
    assert (found.metric.name, found.min_effect) == (metric, share)


def test_pairs_are_begun_until_there_are_enough_or_the_time_is_up(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("benchrunner.cli.commands.compare.time", SimpleNamespace(monotonic=lambda: now[0]))
    usual = _pairs_plan(parse("compare", []))
    few = _pairs_plan(parse("compare", ["--pairs", "3", "--stop-after", "20m"]))
    assert (usual.most, few.most) == (5, 3)
    now[0] += 1199.0
    assert usual.is_time_left() and few.is_time_left()
    now[0] += 1.0
    assert usual.is_time_left() and not few.is_time_left()


@pytest.mark.parametrize("share", ["0%", "100%", "-3%", "nan%", "%", "3%%"])
def test_what_is_no_share(share):
    with pytest.raises(UsageError, match="is no share such as 3%"):
        _options(
            parse("compare", ["--min-effect", share]) if share[0] != "-" else Namespace(metric=None, min_effect=share)
        )


def test_cells_are_run_again_by_the_bench_of_their_side_and_decide(bench, sweeps, monkeypatch, tmp_path):
    calls = []

    def run_pairs(cells, sides, options, rerun, plan, *, tell):
        calls.append((cells, sides, rerun, plan))
        return {one.cell_id: [0.2, 0.2001, 0.1999] for one in cells}

    judged, judge = [], gate.compare
    monkeypatch.setattr(pairs, "run_pairs", run_pairs)
    monkeypatch.setattr(gate, "compare", lambda *how, **more: judged.append((how[2:], more)) or judge(*how, **more))
    base, new = sweeps(1.05)
    own = tmp_path / "a b" / "bench"
    own.parent.mkdir()
    own.touch(mode=0o755)
    words = ["compare", base, new, "--confirm", "--base-bench", f"'{own}' -x", "--pairs", "4"]
    code, out, _, _ = bench(*words)
    [(cells, sides, rerun, plan)] = calls
    assert code == 3 and out.splitlines()[-1].startswith("FAIL") and len(cells) == 1 and plan.most == 4
    assert [str(side.paths.root) for side in sides] == [base, new]
    assert judged == [((), {}), (({cells[0].cell_id: [0.2, 0.2001, 0.1999]},), {"num_looks": 2})]
    assert rerun.commands == {base: [str(own), "-x"], new: [sys.executable, "-m", "benchrunner"]}
    bench("compare", base, new, "--decide", "--new-bench", "true")
    assert calls[1][2].commands == {base: [sys.executable, "-m", "benchrunner"], new: ["true"]}
