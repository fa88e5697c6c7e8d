"""A sweep that version 0.1.0 left, interrupted before its last cell: it is still reported, and resumed."""

import json
import shutil
from pathlib import Path

import pytest

from benchrunner.core.paths import SweepPaths
from benchrunner.core.record import record_to_dict
from benchrunner.launch.fake import FakeLauncher, Script
from benchrunner.report.write import read_sweep, tables_of
from benchrunner.run.sweep import RunOptions, run_plan
from benchrunner.store.environment_file import read_environment
from benchrunner.store.plan_file import load_plan
from benchrunner.store.records import read_record
from reporting import write_report

OLD = Path(__file__).parent / "data" / "old_sweep"

NEWER = ("predicted", "num_checks", "num_checks_decided")
"""Fields that records have gained since."""


@pytest.fixture
def paths(tmp_path):
    return SweepPaths(shutil.copytree(OLD, tmp_path / "20261121T174420Z"))


def test_it_is_reported(paths):
    sweep = read_sweep(paths)
    assert sweep.notes == []
    results = tables_of([sweep]).results
    assert list(results["cell_id"]) == ["5c24f67705f3", "0cc3984cf5a8", "b45f32c9114b"]
    assert list(results["reason_code"]) == ["none", "rule.nf4_train", "skipped.interrupted"]
    first = results.iloc[0]
    recorded = json.loads((paths.cell(first["slug"]).record).read_text())["metrics"]
    assert first["step_time_median_s"] == recorded["step_time_median_s"] > 0
    assert first["peak_memory_allocated_bytes"] == recorded["peak_memory_allocated_bytes"] > 0
    assert first["attention"] == recorded["attention"]


def test_its_records_are_decoded_without_loss(paths):
    for planned in load_plan(paths.root).cells[:2]:
        path = paths.cell(planned.cell.slug).record
        record, problem = read_record(path, planned)
        assert problem is None
        written = record_to_dict(record)
        assert [written.pop(name) for name in NEWER] == [None] * len(NEWER)
        assert json.dumps(written, indent=1) + "\n" == path.read_text()


def test_its_environment_and_its_runs_stand_under_the_tables(paths):
    write_report([paths])
    text = paths.table("results", "md").read_text()
    assert "torch 2.13.0+cpu" in text and "commit ea39ddbb" in text and "devices at work 100.0% " in text


def test_it_is_resumed(paths):
    plan, before = load_plan(paths.root), paths.cell(load_plan(paths.root).cells[0].cell.slug).record.read_bytes()
    launcher = FakeLauncher(lambda job: Script(result={"step_times_s": [0.1] * 3, "tokens_per_step": 64}))
    options = RunOptions(
        resume=True, environment=read_environment(paths)[0], hardware=plan.hardware, clock=launcher.clock, fault=None
    )
    summary = run_plan(plan, paths, launcher=launcher, options=options)
    assert [handle.job.cell.axes["strategy"] for handle in launcher.handles] == ["ddp"]
    assert summary.counts == {"ok": 2, "unsupported": 1}
    assert paths.cell(plan.cells[0].cell.slug).record.read_bytes() == before
    assert [run["counts"] for run in json.loads(paths.runs.read_text())["runs"]] == [
        {"ok": 2, "unsupported": 2},
        {"ok": 2, "unsupported": 1},
    ]
    assert list(tables_of([read_sweep(paths)]).results["status"]) == ["ok", "unsupported", "ok"]
