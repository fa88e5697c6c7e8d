from pathlib import Path

import pytest

from benchrunner.launch.fake import VirtualClock
from benchrunner.run import progress
from samples import make_cell, make_record, plan_cell


def test_a_line_a_finished_cell():
    cell = make_cell()
    line = progress.finished_line(make_record(cell, flags=["unstable"]), 3, 20)
    assert line == f"[ 3/20] ok          {cell.slug}  12.35 ms  10,368 tok/s/device  0.68 GiB  unstable  (12.5 s)"


def test_what_a_workload_is_known_by():
    parity = {"parity_gradient_error": 0.0187, "parity_curve_error": 0.17}
    record = make_record(make_cell(), metrics=parity, flags=["unjudged"])
    assert progress.headline(record) == (
        "gradient error 0.019  curve error 0.17 nats  (no tolerance measured yet)  unjudged"
    )
    checked = {"parity": {"ok": True, "expected": "at most 0.02 and 0.3"}}
    record = make_record(make_cell(), metrics=parity, checks=checked)
    assert progress.headline(record) == "gradient error 0.019  curve error 0.17 nats  (at most 0.02 and 0.3)"
    for name in parity:
        assert progress.headline(make_record(make_cell(), metrics={name: 0.1})) == "done"
    assert progress.headline(make_record(make_cell(), metrics={"mfu": 0.4131})) == "MFU 41.3%"
    generation = {"step_time_median_s": 0.9, "tokens_per_second_per_device": 220.0, "decode_tokens_per_second": 228.24}
    assert progress.headline(make_record(make_cell(), metrics=generation)) == "decodes 228.2 tok/s"


def test_the_line_of_a_further_process_that_took_no_time():
    record = make_record(make_cell(), repeat=2, wall_s=None, metrics={"mfu": 0.4})
    assert progress.finished_line(record, 1, 1, "ddp") == "[1/1] ok          ddp (process 2)  MFU 40.0%"


def test_time_counts_from_the_beginning_of_the_run(capsys):
    clock = VirtualClock(now_s=1000.0)
    reports = progress.Progress(clock).begin(2)
    clock.sleep(60.0)
    reports.report_finished(make_record(make_cell()))
    assert capsys.readouterr().err.endswith("  1/2 done, 1:00 elapsed, about 1:00 left\n")


def test_a_cell_without_numbers_reports_its_reason():
    record = make_record(make_cell(), "failed", "failed.exit", "rank 0 exited", fault="exit")
    assert progress.finished_line(record, 1, 1).endswith("failed.exit: rank 0 exited  (12.5 s)  [fault exit]")


@pytest.mark.parametrize(("seconds", "text"), [(4.23, "4.2 s"), (185, "3:05"), (3723, "1:02:03")])
def test_durations(seconds, text):
    assert progress.format_duration(seconds) == text


def test_the_pace():
    assert progress.pace(0, 4, 3.0) == "0/4 done, 3.0 s elapsed"
    assert progress.pace(2, 4, 60.0) == "2/4 done, 1:00 elapsed, about 1:00 left"


def test_what_is_running_is_shortened():
    assert progress.shorten([]) == "nothing"
    assert progress.shorten(["a", "b"]) == "a, b" and progress.shorten(["a", "b", "c"]) == "a, b and 1 more"
    assert progress.shorten(["a", "b", "c", "d"]) == "a, b and 2 more"
    assert progress.shorten(["a", "b", "c (no sign of life for 31 of 90 s, in build)"]).startswith("c (no sign")


def test_a_note_is_kept_for_the_tables_and_a_report_is_not(capsys):
    reports = progress.Progress(VirtualClock())
    reports.report("waiting for [bold]two[/bold]")
    reports.note("device 1 is lost")
    assert reports.notes == ["device 1 is lost"]
    assert capsys.readouterr().err.splitlines() == ["waiting for [bold]two[/bold]", "device 1 is lost"]


def test_the_live_line_on_a_terminal(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    planned = plan_cell(make_cell())
    with progress.Progress(VirtualClock()).begin(1) as reports:
        reports.report_running([planned.cell.slug])
        reports.report("12 cells are left")
    said = capsys.readouterr().err
    assert f"0/1 done, 0.0 s elapsed; running {planned.cell.slug[:20]}" in said
    assert "12 cells are left" in said, "in no colours"


def test_a_cell_has_the_name_that_the_plan_gives_it(capsys):
    record = make_record(make_cell())
    with progress.Progress(VirtualClock()).begin(1, {record.slug: "ddp · bf16"}) as reports:
        reports.report_finished(record)
    said = capsys.readouterr().err
    assert "ok          ddp · bf16  12.35 ms" in said and record.slug not in said


def test_what_is_concluded_before_the_run_begins_is_counted_by_itself(capsys):
    progress.Progress(VirtualClock()).report_finished(make_record(make_cell()))
    assert capsys.readouterr().err.startswith("[1/1] ok ")


def test_cells_that_are_added_are_counted(capsys):
    record = make_record(make_cell())
    reports = progress.Progress(VirtualClock()).begin(1, {record.slug: "ddp"})
    reports.expect(2, {record.slug: "another name", "probe": "micro_batch_size 2"})
    reports.report_finished(record)
    reports.report_finished(record)
    assert [line[:5] for line in capsys.readouterr().err.splitlines()] == ["[1/3]", "[2/3]"]
    assert [reports.label(slug) for slug in (record.slug, "probe", "x")] == ["ddp", "micro_batch_size 2", "x"]


@pytest.mark.parametrize(("seconds", "text"), [(7.9, "0:07"), (72, "1:12"), (3723, "1:02:03")])
def test_time_that_is_still_passing(seconds, text):
    assert progress.format_clock(seconds) == text


def test_where_to_look_can_be_pasted():
    record = make_record(make_cell(), "failed", "failed.exit", "rank 0 exited", attempt=2)
    log, rerun = progress.where_to_look(record, Path("outputs/cli/one"))
    assert log == f"    log: outputs/cli/one/cells/{record.slug}/attempt-2/" and rerun == f"    rerun: {record.command}"
    for status in ("ok", "skipped"):
        assert progress.where_to_look(make_record(make_cell(), status), Path()) == []
