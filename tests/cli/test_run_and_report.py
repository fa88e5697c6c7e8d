"""The exit code of a run whose cells are all as planned, and whose sweep expects something of them; what flags mean."""

from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchrunner.cli.run_and_report import budget_s, events_file, fail_on, next_steps, repeats, run_and_report
from benchrunner.core.errors import UsageError
from benchrunner.core.paths import SweepPaths
from benchrunner.store.runs import ExitSummary


def ended(code):
    return SimpleNamespace(exit_code=code, counts={"ok": 1}, stopped_by=None, interrupted_by=None)


@pytest.mark.parametrize(
    ("of_the_cells", "violated", "code"), [(0, [], 0), (0, ["stage 3 is smaller"], 3), (2, ["stage 3 is smaller"], 2)]
)
def test_an_expectation_that_does_not_hold_is_a_gate_that_says_no(
    monkeypatch, tmp_path, capsys, of_the_cells, violated, code
):
    monkeypatch.setattr("benchrunner.run.sweep.run_plan", lambda *_, **__: ended(of_the_cells))
    monkeypatch.setattr("benchrunner.cli.run_and_report.show_report", lambda *_: SimpleNamespace(violated=violated))
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    assert run_and_report(None, SweepPaths(tmp_path), None, None) == code
    printed = capsys.readouterr()
    assert printed.out.splitlines()[-1] == str(tmp_path)
    assert all(f"the sweep expects otherwise: {name}" in printed.err for name in violated)


@pytest.mark.parametrize(
    ("read", "flag", "given", "meant"),
    [
        (fail_on, "fail_on", None, ()),
        (fail_on, "fail_on", "oom,,skipped.devices", ("oom", "skipped.devices")),
        (budget_s, "budget", None, None),
        (budget_s, "budget", "45m", 2700.0),
        (repeats, "repeats", None, None),
        (repeats, "repeats", "1", 1),
        (events_file, "events", None, None),
        (events_file, "events", "events.jsonl", Path("events.jsonl")),
    ],
)
def test_what_flags_mean(read, flag, given, meant):
    assert read(Namespace(**{flag: given})) == meant


@pytest.mark.parametrize(
    ("read", "flag", "given", "said"),
    [
        (fail_on, "fail_on", "oom,ok", "'ok' is neither a status"),
        (fail_on, "fail_on", "oom.", "'oom.' is neither a status"),
        (fail_on, "fail_on", "skiped", r"nor a reason code \(did you mean skipped\?\)"),
        (fail_on, "fail_on", "odd.devices", "'odd.devices' is neither"),
        (repeats, "repeats", "0", "'0' is no number of processes"),
        (repeats, "repeats", "-1", "'-1' is no number of processes"),
        (events_file, "events", "nowhere/events.jsonl", "nowhere/events.jsonl: no such directory"),
    ],
)
def test_flags_that_mean_nothing_are_refused(read, flag, given, said):
    with pytest.raises(UsageError, match=f"--{flag.replace('_', '-')}: .*{said}"):
        read(Namespace(**{flag: given}))


@pytest.mark.parametrize(
    ("counts", "more", "steps"),
    [
        ({"ok": 1}, {}, ["later"]),
        ({"ok": 1, "oom": 1}, {}, ["what broke", "later"]),
        ({"skipped": 1, "unsupported": 1}, {}, []),
        ({"failed": 1}, {"interrupted_by": 2}, ["the rest", "what broke"]),
        ({"ok": 1}, {"stopped_by": "disk"}, ["the rest", "later"]),
    ],
)
def test_the_next_commands_are_those_that_help(counts, more, steps):
    paths = SweepPaths(Path("out dir"))
    lines = next_steps(paths, ExitSummary(counts=counts, num_attempted=1, **more)).splitlines()
    assert lines[0] == f"report: {paths.html}" and [line.partition(":")[0] for line in lines[1:]] == steps
    assert all(" 'out dir'" in line for line in lines[1:])
