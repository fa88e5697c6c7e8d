from pathlib import Path

import pytest

from benchrunner.cli import run_and_report
from benchrunner.compare.history import history_text, make_tracks
from benchrunner.compare.metric import METRICS
from benchrunner.compare.side import read_side
from benchrunner.core.paths import SweepPaths
from benchrunner.report import write
from benchrunner.run import sweep as run_sweep
from fake_sweeps import cells
from sides import timed, write_sweep


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["report"], "report needs the directory"),
        (["report", "nowhere"], "nowhere: no such directory"),
        (["report", "."], "not a sweep"),
    ],
)
def test_what_is_no_sweep_is_refused(refused, words, message):
    refused(words, message)


def test_the_tables_of_the_latest_sweep_are_shown_again(bench, sweep):
    code, again, _, _ = bench("report", "outputs/latest")
    assert (code, "skipped.predicted_oom" in again) == (0, True)


def test_lost_tables_are_written_again(bench, sweep, tmp_path):
    table = tmp_path / sweep / "results.csv"
    before = table.read_text()
    table.unlink()
    assert bench("report", sweep)[0] == 0
    assert table.read_text() == before


def test_a_report_writes_junit_and_knows_its_layouts(bench, sweep, tmp_path):
    assert bench("report", sweep, "--junit", "verdicts.xml")[0] == 0
    assert "skipped.predicted_oom" in (tmp_path / "verdicts.xml").read_text()
    code, _, err, _ = bench("report", sweep, "--layout", "litgpt-trian")
    assert code == 1 and "--layout: no layout 'litgpt-trian' (did you mean litgpt-train?)" in err


def test_a_sweep_that_cannot_be_written_is_shown_all_the_same(bench, sweep, monkeypatch):
    def read_only(path, text, **more):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(write, "write_text", read_only)
    code, out, err, _ = bench("report", sweep)
    assert (code, "skipped.predicted_oom" in out) == (0, True)
    assert f"bench: the tables cannot be written into {sweep}: Read-only file system\n" in err


def test_tables_that_cannot_be_made_do_not_change_the_exit_code_of_a_sweep(bench, sweep, monkeypatch):
    def broken(sweeps):
        raise RuntimeError("no tables today")

    monkeypatch.setattr(run_and_report, "show_report", broken)
    code, out, err, _ = bench("resume", sweep)
    assert (code, out) == (4, f"{sweep}\n")
    assert "the tables cannot be made: RuntimeError: no tables today; bench report" in err


def test_a_summary_that_cannot_be_written_keeps_nothing_else_from_it(bench, sweep, monkeypatch, tmp_path):
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "nowhere" / "summary"))
    code, out, err, _ = bench("resume", "--junit", str(tmp_path / "junit.xml"), sweep)
    assert (code, out.splitlines()[-1]) == (4, str(sweep)) and (tmp_path / "junit.xml").exists()
    assert "the job's summary cannot be written" in err and "tables cannot be made" not in err


def test_a_sweep_that_cannot_be_locked_is_one_error(bench, sweep, monkeypatch):
    def read_only(self, *arguments, **more):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(run_sweep.filelock.FileLock, "acquire", read_only)
    code, out, err, _ = bench("resume", sweep)
    assert (code, out, err) == (1, "", f"bench: {sweep}: cannot be written: Read-only file system\n")


@pytest.mark.parametrize("num", [2, 3])
def test_cells_that_three_sweeps_have_measured_are_shown_over_time(bench, tmp_path, num):
    planned = cells(1)
    seconds = ((1.0, 1.001), (1.1, 1.101), (1.2, 1.201))[:num]
    sweeps = [
        str(write_sweep(tmp_path / str(number), planned, timed(planned[0].cell, times)).root)
        for number, times in enumerate(seconds)
    ]
    code, out, _, _ = bench("report", *sweeps, "--history", "deep/history.csv")
    points = (tmp_path / "deep" / "history.csv").read_text().splitlines()[1:]
    assert code == 0 and len(points) == (3 if num == 3 else 0)
    tracks = make_tracks([read_side(SweepPaths(Path(one))) for one in sweeps], METRICS["time"])
    assert (history_text(tracks, METRICS["time"]) in out) is (num == 3)
