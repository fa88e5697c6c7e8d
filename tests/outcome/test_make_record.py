"""The row of a cell, field by field: what the plan, the verdict, the attempt and the ranks each give to it."""

from dataclasses import asdict

import pytest

from benchrunner.core.rank_file import RankFile
from benchrunner.outcome.evidence import Evidence
from benchrunner.outcome.make_record import Attempt, command_of, earlier_attempts, make_record
from benchrunner.outcome.outcome import Outcome
from benchrunner.plan.plan import PlannedCell
from samples import H200, make_cell, plan_cell
from samples import make_record as record_of

ERROR = {"kind": "exception", "code": None, "type": "E", "message": "m", "traceback": "long", "at": 1.0}


def rank_file(rank, phases_s, state="done", **more):
    return RankFile(rank=rank, pid=rank, state=state, phase="teardown", phases_s=phases_s, **more)


@pytest.fixture
def cell():
    return make_cell(strategy="ddp", leaves={"seq_len": 64})


@pytest.fixture
def evidence():
    """Two ranks that were measured; the second ended in a check."""
    result = {"step_times_s": [1.0, 1.0], "losses": [2.0], "tokens_per_step": 10}
    first = result | {"num_parameters": 5, "num_trainable_parameters": 4, "checks": {"shape": {"ok": True}}}
    first["flops"] = {"model_per_step": 1.0, "hardware_per_step": 1.0, "by_dtype": {"bf16": 989e12}}
    ranks = {
        1: rank_file(1, {"build": 3.0, "measure": 1.0}, "error", result=result, error=ERROR),
        0: rank_file(0, {"build": 2.0, "measure": 4.0}, result=first),
    }
    return Evidence(world_size=2, ranks=ranks)


def test_a_record_holds_what_is_known_of_a_cell_and_its_attempt(cell, evidence):
    planned = PlannedCell(cell=cell, verdict="run", flags=["tight"], predicted={"step_s": 1}, repeat=2)
    attempt = Attempt(
        number=2,
        started_at="2026-01-01T00:00:00+00:00",
        wall_s=7.5,
        devices=[3, 4],
        beside=["other"],
        hardware={"peak_flops": {"bf16": 989e12}},
        environment={"python": "3.11"},
        flags=["odd", "tight"],
        earlier=[{"attempt": 1, "status": "failed", "reason_code": "failed.exit", "reason": "it left"}],
    )
    outcome = Outcome(status="invalid", reason_code="validity.shape", reason="no", flags=["seen"], evidence={"rank": 1})
    told = asdict(make_record(planned, outcome, evidence, attempt))
    metrics, flags = told.pop("metrics"), told.pop("flags")
    assert flags[:3] == ["tight", "seen", "odd"] and "unverified:shape" in flags
    assert metrics["step_time_median_s"] == 1.0 and metrics["mfu"] == 0.5
    said = told["checks"].pop("shape")
    assert said == {"ok": None, "note": "a rank ended before it was asked"} and not told["checks"]
    rank_rows = told.pop("ranks")
    for row, rank in zip(rank_rows, (0, 1), strict=True):
        status = evidence.ranks[rank]
        error = {key: ERROR[key] for key in ERROR if key != "traceback"} if rank else None
        told_of = {
            "rank": rank,
            "state": status.state,
            "phase": "teardown",
            "phases_s": status.phases_s,
            "error": error,
        }
        assert row == told_of | status.result
    assert told == {
        "schema_version": told["schema_version"],
        "cell_id": cell.cell_id,
        "config_digest": cell.config_digest,
        "slug": cell.slug,
        "axes": dict(cell.axes),
        "overrides": {"seq_len": 64},
        "sizes": asdict(cell.sizes),
        "status": "invalid",
        "reason_code": "validity.shape",
        "reason": "no",
        "evidence": {"rank": 1},
        "command": command_of(planned),
        "attempt": 2,
        "started_at": "2026-01-01T00:00:00+00:00",
        "wall_s": 7.5,
        "earlier_attempts": [{"attempt": 1, "status": "failed", "reason_code": "failed.exit", "reason": "it left"}],
        "phases_s": {"build": 3.0, "measure": 4.0},
        "num_parameters": 5,
        "num_trainable_parameters": 4,
        "predicted": {"step_s": 1},
        "checks": {},
        "num_checks": 1,
        "num_checks_decided": 0,
        "environment": {"python": "3.11"},
        "devices_used": [3, 4],
        "ran_beside": ["other"],
        "fault": None,
        "repeat": 2,
    }


def test_a_cell_that_never_ran_has_nothing_of_ranks(cell):
    record = make_record(plan_cell(cell), Outcome(status="skipped", reason_code="skipped.budget", reason="over"))
    assert (record.status, record.reason_code, record.reason, record.attempt) == (
        "skipped",
        "skipped.budget",
        "over",
        0,
    )
    assert (record.phases_s, record.metrics, record.ranks, record.checks) == ({}, {}, [], {})
    assert (record.num_checks, record.num_checks_decided, record.predicted) == (None, None, None)
    assert record.command == "bench " + " ".join(cell.as_overrides())


def test_a_phase_that_one_rank_never_entered_took_no_time_there(cell):
    ranks = {0: rank_file(0, {"build": 0.5}), 1: rank_file(1, {"build": 0.25, "compile": 0.125})}
    record = make_record(plan_cell(cell), Outcome(status="failed"), Evidence(world_size=2, ranks=ranks))
    assert record.phases_s == {"build": 0.5, "compile": 0.125}


@pytest.mark.parametrize(
    ("said", "merged"), [([True, None, False], False), ([True, None, True], None), ([True, True, True], True)]
)
def test_a_check_is_as_the_worst_rank_saw_it(said, merged):
    result = {"step_times_s": [1.0], "tokens_per_step": 1}
    ranks = {
        rank: rank_file(rank, {}, result=result | {"checks": {"work": {"ok": ok}}}) for rank, ok in enumerate(said)
    }
    evidence = Evidence(world_size=3, ranks=ranks)
    record = make_record(plan_cell(make_cell(3, strategy="ddp")), Outcome(status="ok"), evidence)
    assert record.checks == {"work": {"ok": merged}}


def test_what_stands_of_earlier_attempts_is_that_of_an_attempt_before(cell):
    before = record_of(cell, "failed", "failed.exit", "it left", attempt=2)
    before.earlier_attempts.append({"attempt": 1, "status": "oom", "reason_code": "oom.host", "reason": "full"})
    last = {"attempt": 2, "status": "failed", "reason_code": "failed.exit", "reason": "it left"}
    assert earlier_attempts(before, 3) == [*before.earlier_attempts, last]
    assert earlier_attempts(None, 3) == earlier_attempts(before, 2) == []
    assert earlier_attempts(record_of(cell, attempt=0), 1) == [] and len(earlier_attempts(record_of(cell), 2)) == 1


def test_the_command_names_the_fault_that_was_planted(cell):
    assert command_of(plan_cell(cell), "kill@1").startswith("BENCH_FAULT=kill@1 bench model=")


def test_mfu_is_that_of_the_machine_it_ran_on(cell, evidence):
    attempt = Attempt(hardware={"peak_flops": H200.peak_flops})
    assert make_record(plan_cell(cell), Outcome(status="ok"), evidence, attempt).metrics["mfu"] == 0.5
    assert make_record(plan_cell(cell), Outcome(status="ok"), evidence).metrics["mfu"] is None
