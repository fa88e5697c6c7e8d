"""From a sweep's directory to its files: whole, half-finished, damaged, merged."""

from dataclasses import replace

import pandas as pd
import pytest

from benchrunner.core.errors import SweepDirError
from benchrunner.core.files import write_json
from benchrunner.core.paths import SweepPaths
from benchrunner.core.record import record_to_dict
from benchrunner.plan.plan import Plan
from benchrunner.report.write import merge_rows, write_report
from benchrunner.store.plan_file import write_plan
from samples import CPU, H200, make_cell, make_record, make_row, plan_cell

ONE, TWO, THREE = make_cell(), make_cell(strategy="ddp"), make_cell(strategy="fsdp_stage3", precision="nf4")
FILES = ["compatibility.csv", "compatibility.md", "report.html", "results.csv", "results.md"]


@pytest.fixture
def sweep(tmp_path):
    return make_sweep(tmp_path)


def make_sweep(out_dir, hardware=CPU):
    planned = [plan_cell(ONE), plan_cell(TWO), plan_cell(THREE, "unsupported", "rule.nf4_train", "cannot train")]
    words = ["-m", "strategy=single,ddp"]
    made = Plan(
        cells=planned, hardware=hardware, sweep_name="cli", arguments=words, created_at="2026-11-21T03:00:00+00:00"
    )
    return SweepPaths(write_plan(made, out_dir))


def put(sweep, record):
    path = sweep.cell(record.slug).record
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, record_to_dict(record))
    return path


def statuses(tables):
    return dict(zip(tables.results["slug"], tables.results["status"], strict=True))


def test_a_half_finished_sweep(sweep):
    put(sweep, make_record(ONE))
    tables = write_report([sweep])
    assert statuses(tables) == {ONE.slug: "ok", TWO.slug: "skipped", THREE.slug: "unsupported"}
    waiting = tables.results.set_index("slug").loc[TWO.slug]
    assert waiting["reason_code"] == "skipped.interrupted" and waiting["reason"].startswith("no record")
    assert sorted(path.name for path in sweep.root.iterdir() if path.suffix in (".csv", ".md", ".html")) == FILES
    assert len(pd.read_csv(sweep.table("results", "csv"))) == 3


def test_rebuilding_gives_the_same_files(sweep):
    put(sweep, make_record(ONE))
    write_report([sweep])
    first = {name: (sweep.root / name).read_bytes() for name in FILES}
    write_report([sweep])
    assert {name: (sweep.root / name).read_bytes() for name in FILES} == first


def test_a_moved_sweep(sweep, tmp_path):
    put(sweep, make_record(ONE))
    moved = sweep.root.rename(tmp_path / "elsewhere")
    assert statuses(write_report([SweepPaths(moved)]))[ONE.slug] == "ok"


@pytest.mark.parametrize(
    "text",
    ['{"schema_version": 1, "cell', "", "[]", "null", '{"schema_version": 99}', '{"schema_version": 1}', "\x00\x01"],
)
def test_a_damaged_record_is_named_and_skipped(sweep, text):
    put(sweep, make_record(ONE))
    put(sweep, make_record(TWO)).write_text(text)
    tables = write_report([sweep])
    assert statuses(tables)[ONE.slug] == "ok" and statuses(tables)[TWO.slug] == "skipped"
    assert any(f"cells/{TWO.slug}/record.json is damaged" in note for note in tables.notes)
    assert f"cells/{TWO.slug}/record.json" in " ".join(tables.results["reason"])


def test_bytes_that_are_no_text(sweep):
    put(sweep, make_record(ONE)).write_bytes(b"\xff\xfe\x00")
    assert statuses(write_report([sweep]))[ONE.slug] == "skipped"


def test_a_record_of_another_cell_is_named_and_skipped(sweep):
    record = make_record(TWO)
    path = sweep.cell(ONE.slug).record
    path.parent.mkdir(parents=True)
    write_json(path, record_to_dict(record))
    tables = write_report([sweep])
    assert statuses(tables)[ONE.slug] == "skipped"
    assert any("belongs to another cell" in note for note in tables.notes)


def test_a_foreign_directory_is_named(sweep):
    (sweep.root / "cells" / "from-elsewhere").mkdir(parents=True)
    assert "cells/from-elsewhere is not in the plan and was skipped" in write_report([sweep]).notes


def test_the_environment_stands_under_the_tables(sweep):
    write_json(sweep.environment, {"python": "3.11.7", "versions": {"torch": "2.13.0"}, "git": {"commit": "abc"}})
    write_report([sweep])
    for name in ("results", "compatibility"):
        text = sweep.table(name, "md").read_text()
        assert "torch 2.13.0" in text and "commit abc" in text and "bench -m strategy=single,ddp" in text


@pytest.mark.parametrize("text", ["{", "[1]", ""])
def test_a_damaged_environment_does_not_stop_the_report(sweep, text):
    sweep.environment.write_text(text)
    assert write_report([sweep]).environments[0].lines[-1] == ("Environment", "not recorded")


@pytest.mark.parametrize("text", ["{", "[1]", "", "{}"])
def test_a_damaged_history_of_runs_is_named_and_skipped(sweep, text):
    sweep.runs.write_text(text)
    assert [note for note in write_report([sweep]).notes if note.startswith("runs.json is damaged and was skipped")]


def test_what_is_no_sweep_is_refused(tmp_path, sweep):
    with pytest.raises(SweepDirError):
        write_report([SweepPaths(tmp_path)])
    sweep.plan.write_text("{")
    with pytest.raises(SweepDirError):
        write_report([sweep])


# --- merging -------------------------------------------------------------------------------------------------------


def test_two_parts_of_a_matrix_become_one(tmp_path, monkeypatch):
    first, second = make_sweep(tmp_path), make_sweep(tmp_path)
    assert first.root != second.root
    put(first, make_record(ONE))
    put(second, make_record(TWO))
    merged = SweepPaths(tmp_path / "merged")
    tables = write_report([first, second], merged)
    assert statuses(tables) == {ONE.slug: "ok", TWO.slug: "ok", THREE.slug: "unsupported"}
    assert len(tables.environments) == 2 and any("3 rows" in note for note in tables.notes)
    assert not first.table("results", "csv").exists()
    assert merged.table("results", "csv").exists()


def test_merged_tables_never_overwrite_a_part(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_report([make_sweep(tmp_path / "x"), make_sweep(tmp_path / "x")])
    assert [path.name for path in (tmp_path / "x" / "merged").glob("*/results.csv")] == ["results.csv"]
    assert [path.name for path in tmp_path.iterdir()] == ["x"], "and lie where the sweeps lie, whatever their plans say"


def test_merged_tables_of_a_sweep_that_was_moved_lie_beside_it(tmp_path):
    (tmp_path / "y").mkdir()
    moved = make_sweep(tmp_path / "x").root.rename(tmp_path / "y" / "copy")
    write_report([SweepPaths(moved), make_sweep(tmp_path / "x")])
    assert list((tmp_path / "y" / "merged").glob("*/results.csv"))


def test_the_latest_attempt_wins_and_a_measured_cell_beats_a_planned_one():
    old = make_record(ONE, "failed", "failed.exception", "x", started_at="2026-11-20T00:00:00+00:00")
    new = make_record(ONE, started_at="2026-11-21T00:00:00+00:00")
    ruled = make_record(ONE, "skipped", "skipped.devices", "x", attempt=0, started_at=None)
    for records in ([old, new, ruled, None], [None, ruled, new, old]):
        rows, notes = merge_rows([make_row(ONE, record) for record in records])
        assert [row.record for row in rows] == [new] and notes


def test_the_same_cell_on_another_device_or_torch_keeps_its_row():
    other_torch = replace(CPU, torch="2.12.0")
    rows, notes = merge_rows([make_row(ONE, hardware=hardware) for hardware in (CPU, H200, other_torch)])
    assert len(rows) == 3 and notes == []
