import json
import signal

import pytest

from benchrunner.core.errors import SweepDirError
from benchrunner.launch.fake import Script
from benchrunner.run.resume import Selection
from fake_sweeps import ENVIRONMENT, ERROR, OK, cells, interrupted, record, run
from samples import CPU, H200, make_cell, plan_cell


def test_resume_keeps_verdicts_and_runs_the_others_again(paths):
    planned = cells(4)
    oom, bad, hung = Script(errors={0: ERROR | {"kind": "oom"}}), Script(exits={0: 3}), Script(hangs=True)
    first = dict(zip((one.cell.slug for one in planned), (OK, oom, bad, hung), strict=True))
    summary, _ = run(paths, planned, first)
    assert summary.exit_code == 2
    summary, launcher = run(paths, planned, resume=True)
    assert [handle.job.cell for handle in launcher.handles] == [planned[2].cell, planned[3].cell]
    assert [record(paths, one)["attempt"] for one in planned] == [1, 1, 2, 2]
    assert summary.counts == {"ok": 3, "oom": 1} and summary.exit_code == 0
    assert paths.cell(planned[2].cell.slug).attempt(1).exits().exists()


def test_resume_runs_what_never_ran(paths):
    planned = cells(4)
    run(paths, planned, launcher=interrupted(2, signal.SIGINT))
    summary, launcher = run(paths, planned, resume=True)
    assert len(launcher.handles) == 3 and summary.counts == {"ok": 4}


def test_resume_takes_over_ranks_that_finished_without_a_record(paths):
    planned = cells(2)
    run(paths, planned)
    paths.cell(planned[0].cell.slug).record.unlink()
    summary, launcher = run(paths, planned, resume=True)
    assert launcher.handles == [] and summary.counts == {"ok": 2}
    made = record(paths, planned[0])
    assert (made["attempt"], made["metrics"]["step_time_median_s"]) == (1, 0.1)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema_version": 99}', "null"])
def test_a_damaged_record_is_named_and_made_again(paths, capsys, text):
    planned = cells(1)
    run(paths, planned, Script(exits={0: 3}))
    paths.cell(planned[0].cell.slug).record.write_text(text)
    summary, launcher = run(paths, planned, OK, resume=True)
    assert len(launcher.handles) == 1 and summary.counts == {"ok": 1}
    said = f"cells/{planned[0].cell.slug}/record.json is damaged"
    assert said in capsys.readouterr().err and summary.notes[0].startswith(said)


@pytest.mark.parametrize("text", ["", "{", "[]"])
def test_a_damaged_environment_is_named_and_replaced_by_what_a_record_knows(paths, text):
    planned = cells(2)
    run(paths, planned, {planned[0].cell.slug: Script(exits={0: 3})})
    paths.environment.write_text(text)
    other = ENVIRONMENT | {"versions": {"torch": "2.11.0"}}
    with pytest.raises(SweepDirError, match=r"torch 2\.13\.0, here 2\.11\.0"):
        run(paths, planned, resume=True, environment=other)
    paths.environment.write_text(text)
    summary, _ = run(paths, planned, resume=True)
    assert summary.counts == {"ok": 2}
    assert summary.notes[0].startswith("environment.json is damaged and was replaced")
    assert json.loads(paths.environment.read_text())["versions"] == ENVIRONMENT["versions"]


def test_devices_that_have_come_back_are_used(paths):
    planned = [plan_cell(make_cell(strategy="ddp"), "skipped", "skipped.devices", "needs 2 devices")]
    assert run(paths, planned, hardware=CPU)[0].exit_code == 4
    summary, _ = run(paths, planned, resume=True, hardware=H200)
    assert summary.counts == {"ok": 1}


def test_resume_refuses_other_software_unless_it_may_mix(paths):
    planned = cells(2)
    run(paths, planned, {planned[0].cell.slug: Script(exits={0: 3})})
    other = ENVIRONMENT | {"versions": {"torch": "2.11.0"}}
    with pytest.raises(SweepDirError, match=r"torch 2.13.0, here 2.11.0.*--mix"):
        run(paths, planned, resume=True, environment=other)
    run(paths, planned, resume=True, environment=other, mix=True)
    mixed, kept = record(paths, planned[0]), record(paths, planned[1])
    assert "mixed_environment" in mixed["flags"] and mixed["environment"]["versions"]["torch"] == "2.11.0"
    assert "mixed_environment" not in kept["flags"]


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        (Selection(statuses=frozenset({"failed"})), [2]),
        (Selection(statuses=frozenset({"timeout", "failed"})), [2, 3]),
        (Selection(cells=("*seed-3*",)), [3]),
        (Selection(statuses=frozenset({"failed"}), cells=("*seed-3*",)), []),
        (Selection(cells=("*seed-0*",)), []),
    ],
)
def test_resume_runs_only_what_was_chosen(paths, chosen, expected):
    planned = cells(5)
    scripts = {planned[2].cell.slug: Script(exits={0: 3}), planned[3].cell.slug: Script(hangs=True)}
    run(paths, planned[:4], scripts)
    _, launcher = run(paths, planned, resume=True, selection=chosen)
    assert [handle.job.cell.config.seed for handle in launcher.handles] == expected
    assert not paths.cell(planned[4].cell.slug).record.exists()


def test_a_cell_is_chosen_by_its_id(paths):
    planned = cells(3)
    run(paths, planned, selection=Selection(cells=(planned[1].cell.cell_id,)))
    assert [paths.cell(one.cell.slug).record.exists() for one in planned] == [False, True, False]


def test_earlier_attempts_are_listed(paths):
    planned = cells(1)
    run(paths, planned, Script(exits={0: 3}))
    run(paths, planned, Script(exits={0: -9}), resume=True)
    run(paths, planned, resume=True)
    earlier = record(paths, planned[0])["earlier_attempts"]
    assert [(one["attempt"], one["reason_code"]) for one in earlier] == [(1, "failed.exit"), (2, "failed.signal")]


def test_a_verdict_under_a_fault_is_not_kept_without_it(paths):
    planned = cells(1)
    run(paths, planned, fault="grandchild")
    assert run(paths, planned, resume=True, fault="grandchild")[1].handles == []
    _, launcher = run(paths, planned, resume=True)
    assert len(launcher.handles) == 1 and record(paths, planned[0])["fault"] is None
    assert run(paths, planned, resume=True, fault="hang")[1].handles == []


def test_a_cell_too_large_for_this_machine_is_skipped(paths):
    planned = cells(1, devices=8)
    summary, launcher = run(paths, planned, hardware=H200)
    assert record(paths, planned[0])["reason_code"] == "skipped.devices"
    assert launcher.handles == [] and summary.exit_code == 4
