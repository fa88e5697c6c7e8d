"""The exit code of a run whose cells are all as planned, and whose sweep expects something of them; what flags mean."""

import re
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchrunner.cli import run_and_report as module
from benchrunner.cli.run_and_report import (
    SKIPS,
    budget_s,
    events_file,
    fail_on,
    junit_file,
    next_steps,
    repeats,
    report,
    run_and_report,
    show_report,
    write_junit,
)
from benchrunner.core.errors import UsageError
from benchrunner.core.paths import PACKAGE, SweepPaths
from benchrunner.store.runs import ExitSummary


def test_every_reason_to_skip_a_cell_is_known_to_fail_on():
    sources = "".join(path.read_text() for path in PACKAGE.rglob("*.py"))
    assert set(re.findall(r'"skipped\.([a-z_]+)"', sources)) == set(SKIPS)


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
        (junit_file, "junit", None, None),
        (junit_file, "junit", "x.xml", "x.xml"),
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
        (fail_on, "fail_on", "skipped.device", r"no cell ends as 'skipped.device' \(did you mean skipped.devices\?\)"),
        (fail_on, "fail_on", "timeout.later", "no cell ends as 'timeout.later'.*: timeout.start, timeout.build"),
        (repeats, "repeats", "0", "'0' is no number of processes"),
        (repeats, "repeats", "-1", "'-1' is no number of processes"),
        (events_file, "events", "nowhere/events.jsonl", "nowhere/events.jsonl: no such directory"),
        (events_file, "events", f"{'a' * 300}/x", f"{'a' * 300}/x: no such directory"),
        (junit_file, "junit", "nowhere/x.xml", "nowhere/x.xml: no such directory"),
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


def raises(error):
    def act(*_):
        raise error

    return act


def test_a_plan_is_run_as_the_command_chose(monkeypatch, tmp_path):
    ran = []
    monkeypatch.setattr(
        "benchrunner.run.sweep.run_plan", lambda *given, **more: ran.append((*given, more)) or "summary"
    )
    monkeypatch.setattr(module, "report", lambda *given: given)
    assert run_and_report("plan", "paths", "launcher", "options", "junit") == ("paths", "summary", "junit")
    assert ran == [("plan", "paths", {"launcher": "launcher", "options": "options"})]


def test_tables_that_cannot_be_made_are_named_and_change_nothing_else(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(module, "show_report", raises(RuntimeError("no tables today")))
    paths, summary = SweepPaths(tmp_path), ended(2)
    assert report(paths, summary) == 2
    out, err = capsys.readouterr()
    said = f"bench: the tables cannot be made: RuntimeError: no tables today; bench report {tmp_path} makes them again"
    assert (out, err) == (f"{tmp_path}\n", f"{said}\n{next_steps(paths, summary)}\n")


def test_others_are_told_although_one_of_them_cannot_be(monkeypatch, tmp_path, capsys):
    told = []
    tables = SimpleNamespace(violated=["smaller", "faster"])
    monkeypatch.setattr(module, "show_report", lambda sweeps: told.append(sweeps) or tables)
    monkeypatch.setattr("benchrunner.report.job_summary.job_summary", lambda given: f"summary of {given.violated}")
    monkeypatch.setattr(module, "add_to_job_summary", lambda text: told.append(text) or raises(OSError(28, "full"))())
    monkeypatch.setattr(module, "write_junit", lambda *given: told.append(given) or raises(UsageError("no junit"))())
    paths = SweepPaths(tmp_path)
    assert report(paths, ended(0), "junit.xml") == 3 and told == [
        [paths],
        "summary of ['smaller', 'faster']",
        (tables, "junit.xml"),
    ]
    said = ("the job's summary cannot be written: [Errno 28] full", "no junit")
    violated = ("the sweep expects otherwise: smaller", "the sweep expects otherwise: faster")
    lines = [f"bench: {line}" for line in said]
    after = [f"bench: {line}" for line in violated]
    assert capsys.readouterr().err.splitlines() == [*lines, *next_steps(paths, ended(0)).splitlines(), *after]


def test_junit_is_written_where_a_file_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr("benchrunner.report.junit.to_junit", {"tables": "<xml>"}.__getitem__)
    write_junit("tables", None)
    write_junit("tables", str(tmp_path / "junit.xml"))
    assert (tmp_path / "junit.xml").read_text() == "<xml>"
    with pytest.raises(UsageError, match=r"^--junit: cannot write .*/nowhere/junit\.xml: No such file or directory$"):
        write_junit("tables", str(tmp_path / "nowhere" / "junit.xml"))


@pytest.mark.parametrize("error", [None, OSError(30, "Read-only file system")])
def test_what_was_left_is_cleaned_and_the_tables_written_and_shown(monkeypatch, tmp_path, capsys, error):
    did = []

    def write_tables(tables, target):
        did.append((tables, target))
        if error:
            raise error

    target = SweepPaths(tmp_path)
    monkeypatch.setattr("benchrunner.report.write.make_report", lambda *given: did.append(given) or ("tables", target))
    monkeypatch.setattr("benchrunner.report.write.write_tables", write_tables)
    monkeypatch.setattr("benchrunner.run.log_cleaner.clean_what_was_left", did.append)
    monkeypatch.setattr("benchrunner.report.terminal.print_tables", did.append)
    assert show_report(["a", "b"], "layout") == "tables"
    assert did == [(["a", "b"], "layout"), "a", "b", ("tables", target), "tables"]
    said = f"bench: the tables cannot be written into {tmp_path}: Read-only file system\n" if error else ""
    assert capsys.readouterr().err == said
