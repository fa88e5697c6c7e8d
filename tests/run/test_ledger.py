from dataclasses import replace

import pytest

from benchrunner.outcome.make_record import Attempt
from benchrunner.outcome.outcome import Outcome
from benchrunner.plan.verdict import PREDICTED_ONLY
from benchrunner.run import ledger
from benchrunner.run.ledger import Ledger
from benchrunner.store.runs import ExitSummary, read_runs
from fake_sweeps import cells, record
from samples import make_cell, plan_cell


@pytest.mark.parametrize(("value", "error"), [(float("nan"), "ValueError"), (object(), "TypeError")])
def test_what_is_no_json_becomes_the_verdict(paths, value, error):
    (planned,) = cells(1)
    measured = Outcome(status="ok", evidence={"value": value})
    made = Ledger(paths, {}, {}, []).conclude(planned, measured, None, Attempt(number=3))
    assert (made.status, made.reason_code, made.attempt) == ("failed", "failed.runner", 3)
    assert made.reason.startswith(f"the record could not be made: {error}: ")
    assert record(paths, planned)["reason"] == made.reason


def test_a_record_that_cannot_be_written_says_so_and_counts(paths, monkeypatch):
    def full(path, value, **more):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ledger, "write_json", full)
    (planned,) = cells(1)
    kept = Ledger(paths, {}, {}, [])
    made = kept.conclude(planned, Outcome(status="ok"), None, Attempt(number=3))
    assert (made.status, made.reason_code, made.attempt) == ("failed", "failed.write", 3)
    assert made.reason == "the record could not be written: OSError: [Errno 28] No space left on device"
    assert kept.summarise([planned], None).counts == {"failed": 1}


def test_what_was_measured_outlives_a_power_cut_and_what_the_plan_says_need_not(paths, monkeypatch):
    synced = {}
    monkeypatch.setattr(ledger, "write_json", lambda path, value, *, sync: synced.update({value["slug"]: sync}))
    measured, skipped = cells(2)
    ruled = plan_cell(make_cell(precision="nf4"), "unsupported", "rule.nf4", "nf4 cannot train")
    kept = Ledger(paths, {}, {}, [])
    kept.conclude(measured, Outcome(status="ok"), None, Attempt(number=1))
    kept.skip(skipped, Outcome(status="skipped", reason_code="skipped.budget"))
    kept.decided([ruled])
    assert [synced[one.cell.slug] for one in (measured, skipped, ruled)] == [True, False, False]


def test_a_verdict_of_the_plan_is_recorded_with_its_grounds(paths):
    ruled = plan_cell(make_cell(precision="nf4"), "unsupported", "rule.nf4", "nf4 cannot train")
    Ledger(paths, {}, {}, []).decided([replace(ruled, evidence={"rule": "nf4"})])
    made = record(paths, ruled)
    assert (made["status"], made["reason_code"], made["reason"]) == ("unsupported", "rule.nf4", "nf4 cannot train")
    assert made["evidence"] == {"rule": "nf4"} and made["attempt"] == 0


def test_what_was_launched_and_what_is_a_prediction_alone_are_counted(paths):
    measured, predicted, missing = cells(3)
    kept = Ledger(paths, {}, {}, [])
    kept.conclude(measured, Outcome(status="ok"), None, Attempt(number=1))
    kept.conclude(predicted, Outcome(status="skipped", reason_code=PREDICTED_ONLY))
    summary = kept.summarise([measured, predicted, missing], None)
    assert (summary.num_attempted, summary.num_predicted, summary.counts) == (1, 1, {"ok": 1, "skipped": 2})


def test_when_a_run_began_is_kept(paths):
    summary = ExitSummary(counts={"ok": 1}, num_attempted=1)
    Ledger(paths, {}, {}, []).keep_run(summary, "2026-11-21T03:00:00+00:00")
    assert [run.started_at for run in read_runs(paths)[0]] == ["2026-11-21T03:00:00+00:00"]
