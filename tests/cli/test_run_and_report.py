"""The exit code of a run whose cells are all as planned, and whose sweep expects something of them."""

from types import SimpleNamespace

import pytest

from benchrunner.cli.run_and_report import run_and_report
from benchrunner.core.paths import SweepPaths


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
