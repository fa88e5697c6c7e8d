"""What a killed `bench` left of logs is scrubbed before anybody is shown a table, and no log is touched under a job."""

import json
import os
import subprocess

import filelock
import pytest

from benchrunner.cli.run_and_report import show_report
from benchrunner.core import scrub
from benchrunner.core.paths import CellPaths, SweepPaths, place_of
from benchrunner.run.log_cleaner import clean_logs, clean_what_was_left
from benchrunner.store.plan_file import write_plan
from fake_sweeps import OK, cells, make_plan, run

SECRET = "hf_" + "q7Rk2LmXw9TzBv4NsYd8PcJh5Ge"


@pytest.fixture
def sweep(paths, monkeypatch):
    """A cell that was measured, whose log holds a secret and was not cleaned; its attempt."""
    monkeypatch.setenv("HF_TOKEN", SECRET)
    (planned,) = cells(1)
    run(paths, [planned], OK)
    attempt = paths.cell(planned.cell.slug).attempt(1)
    attempt.err(0).write_text(f"token {SECRET}\n")
    attempt.cleaned.unlink()
    return paths, attempt


def test_of_a_killed_bench_the_logs_are_scrubbed_before_anything_is_shown(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", SECRET)
    planned = cells(2)
    paths = SweepPaths(write_plan(make_plan(planned), tmp_path))
    run(paths, planned, OK)
    attempts = [paths.cell(one.cell.slug).attempt(1) for one in planned]
    for attempt in attempts:
        attempt.err(0).write_text(f"token {SECRET}\n")
        attempt.cleaned.unlink()
    show_report([paths])
    assert [attempt.err(0).read_text() for attempt in attempts] == ["token <secret>\n"] * 2


def test_what_was_cleaned_is_not_read_again(sweep):
    paths, attempt = sweep
    clean_what_was_left(paths)
    attempt.err(0).write_text("as it is")
    before = attempt.err(0).stat().st_ino
    attempt.err(0).write_text(f"{SECRET}\n")
    clean_what_was_left(paths)
    assert attempt.cleaned.exists() and attempt.err(0).stat().st_ino == before


def test_an_attempt_without_a_record_is_cleaned_once_nobody_runs_the_sweep(sweep):
    paths, attempt = sweep
    attempt.root.with_name("record.json").unlink()
    with filelock.FileLock(paths.lock):
        clean_what_was_left(paths)
        assert SECRET in attempt.err(0).read_text()
    clean_what_was_left(paths)
    assert attempt.err(0).read_text() == "token <secret>\n"


def test_the_logs_of_a_job_that_another_bench_runs_are_left_alone(sweep, marked):
    """A copy of its sweep is reported meanwhile."""
    paths, attempt = sweep
    attempt.root.with_name("record.json").unlink()
    marked(json.loads(attempt.cell.read_text())["marker"])
    clean_what_was_left(paths)
    assert SECRET in attempt.err(0).read_text()


def test_what_has_a_record_is_cleaned_while_the_sweep_is_at_work(sweep):
    paths, attempt = sweep
    with filelock.FileLock(paths.lock):
        clean_what_was_left(paths)
    assert attempt.err(0).read_text() == "token <secret>\n"


@pytest.mark.parametrize("asked", [lambda paths: paths.claims(1), lambda paths: paths.allocations])
def test_of_a_sweep_on_a_cluster_what_has_no_record_may_be_at_work(sweep, asked):
    paths, attempt = sweep
    attempt.root.with_name("record.json").unlink()
    asked(paths).mkdir(parents=True)
    clean_what_was_left(paths)
    assert SECRET in attempt.err(0).read_text()


@pytest.mark.parametrize("text", [None, "{", "{}"])
def test_without_a_record_that_can_be_read_a_sweep_that_nobody_ever_locked_is_cleaned(sweep, text):
    paths, attempt = sweep
    paths.lock.unlink(missing_ok=True)
    record = attempt.root.with_name("record.json")
    record.unlink() if text is None else record.write_text(text)
    clean_what_was_left(paths)
    assert attempt.err(0).read_text() == "token <secret>\n"


def test_the_logs_of_further_processes_are_cleaned_and_links_among_cells_passed_over(paths, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", SECRET)
    planned = cells(1, repeats=2)
    run(paths, planned, OK)
    attempt = paths.cell(place_of(planned[0].cell.slug, 2)).attempt(1)
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "attempt-1").mkdir(parents=True)
    (paths.root / "cells" / "a-link").symlink_to(elsewhere)
    for place in (attempt, CellPaths(elsewhere).attempt(1)):
        place.err(0).write_text(f"token {SECRET}\n")
        place.cleaned.unlink(missing_ok=True)
    clean_what_was_left(paths)
    assert attempt.err(0).read_text() == "token <secret>\n"
    assert SECRET in (elsewhere / "attempt-1" / "rank0.err").read_text()


def test_a_sweep_without_cells_has_no_logs(paths):
    clean_what_was_left(paths)
    assert list(paths.root.iterdir()) == []


def test_a_mark_that_cannot_be_written_ends_nothing(sweep, monkeypatch):
    def full(path):
        raise OSError(28, "No space left on device")

    _, attempt = sweep
    monkeypatch.setattr("pathlib.Path.touch", full)
    clean_logs(attempt)
    assert attempt.err(0).read_text() == "token <secret>\n" and not attempt.cleaned.exists()


@pytest.mark.parametrize("text", [None, "{"])
def test_the_logs_of_a_job_that_cannot_be_read_are_cleaned(sweep, text):
    paths, attempt = sweep
    attempt.root.with_name("record.json").unlink()
    attempt.cell.unlink() if text is None else attempt.cell.write_text(text)
    clean_what_was_left(paths)
    assert attempt.err(0).read_text() == "token <secret>\n"


def test_what_a_killed_process_had_half_written_goes_and_what_is_being_written_stays(sweep):
    paths, attempt = sweep
    gone = subprocess.Popen(["true"])
    gone.wait()
    left = [folder / f".record.json.{gone.pid}.tmp" for folder in (attempt.root, attempt.root.parent)]
    now = attempt.root / f".rank0.json.{os.getpid()}.tmp"
    for path in (*left, now):
        path.write_text(SECRET)
    (attempt.root / f".no-file.{gone.pid}.tmp").mkdir()
    clean_what_was_left(paths)
    assert not any(path.exists() for path in left) and now.exists()


def test_a_log_that_could_not_be_written_is_tried_again(sweep, monkeypatch):
    paths, attempt = sweep
    monkeypatch.setattr(scrub, "write_bytes", lambda path, chunks: (_ for _ in ()).throw(OSError(28, "full")))
    clean_logs(attempt)
    assert not attempt.cleaned.exists()
    monkeypatch.undo()
    monkeypatch.setenv("HF_TOKEN", SECRET)
    clean_what_was_left(paths)
    assert attempt.err(0).read_text() == "token <secret>\n"


def test_a_link_in_the_place_of_an_attempt_is_not_followed(sweep, tmp_path):
    paths, attempt = sweep
    elsewhere = tmp_path / "elsewhere"
    attempt.root.rename(elsewhere)
    attempt.root.symlink_to(elsewhere)
    clean_what_was_left(paths)
    assert SECRET in (elsewhere / "rank0.err").read_text()
