from benchrunner.launch.fake import Script
from benchrunner.run.circuit_breaker import CircuitBreaker
from fake_sweeps import ERROR, RESULT, cells, record, run
from samples import H200, make_cell, make_record, plan_cell


def failed(seed, reason="rank 0, in phase build, raised RuntimeError: no", status="failed", code="failed.exception"):
    return make_record(make_cell(leaves={"seed": seed}), status, code, reason)


def learn(breaker, record):
    """Why no further cell is started after this record; None while they are."""
    breaker.learn(plan_cell(make_cell(leaves={"seed": 0})), record)
    outcome = breaker.refusal(plan_cell(make_cell(leaves={"seed": 99})), 0.0)
    assert (outcome is None) == (breaker.stopped_by is None)
    return outcome and outcome.reason


def test_the_same_failure_in_different_cells_opens_it():
    breaker = CircuitBreaker(3)
    assert learn(breaker, failed(0, "rank 0 at 0x7fab: 12.5 GiB")) is None
    assert learn(breaker, failed(1, "rank 3 at 0x1234: 7 GiB")) is None
    why = "the same failure in 3 cells (brake=3): failed.exception: rank 1 at 0x9: 3 GiB"
    assert learn(breaker, failed(2, "rank 1 at 0x9: 3 GiB")) == f"not started, because {why}"
    assert learn(breaker, failed(3, "rank 1 at 0x9: 4 GiB")) == f"not started, because {why}", "the first reason stays"
    assert breaker.refusal(plan_cell(make_cell()), 0.0).reason_code == "skipped.brake" == breaker.code


def test_what_counts():
    breaker = CircuitBreaker(2)
    assert learn(breaker, failed(0)) is None
    assert learn(breaker, failed(0)) is None, "the same cell again"
    assert learn(breaker, failed(1, "something else")) is None
    assert learn(breaker, failed(2, code="failed.signal")) is None
    for status in ("ok", "oom", "unsupported", "invalid", "skipped"):
        assert learn(breaker, failed(3, status=status)) is None
    assert learn(breaker, failed(4, "no progress for 60 s (rank 0 here)", "timeout", "timeout.build")) is None
    assert learn(breaker, failed(5, "no progress for 90 s (rank 1 there)", "timeout", "timeout.build")) is not None


def test_it_is_noted_once_with_the_cells_that_were_not_started():
    breaker = CircuitBreaker(1)
    learn(breaker, failed(0))
    assert breaker.note(0, at_end=False) is None
    assert breaker.note(7, at_end=False).startswith("stopped early, 7 cells were not started: the same failure in 1 ")
    assert breaker.note(8, at_end=True) is None


def test_without_a_limit_it_never_opens():
    breaker = CircuitBreaker(None)
    assert [learn(breaker, failed(seed)) for seed in range(20)] == [None] * 20


# --- through the loop


def test_an_open_breaker_stops_the_sweep_and_keeps_every_verdict(paths, capsys):
    planned = cells(12, brake=3)
    bad = {one.cell.slug: Script(errors={0: ERROR}) for one in planned[2:]}
    summary, launcher = run(paths, planned, bad)
    assert len(launcher.handles) == 5 and summary.exit_code == 2 and summary.stopped_by == "brake"
    assert summary.counts == {"ok": 2, "failed": 3, "skipped": 7}
    made = record(paths, planned[11])
    assert made["reason_code"] == "skipped.brake" and "the same failure in 3 cells" in made["reason"]
    assert "7 cells were not started" in capsys.readouterr().err
    summary, launcher = run(paths, planned, resume=True)
    assert len(launcher.handles) == 10 and summary.counts == {"ok": 12}


def test_cells_that_run_when_the_breaker_opens_reach_their_end(paths):
    planned = cells(8, brake=2)
    bad = Script(errors={0: ERROR})
    scripts = {one.cell.slug: Script(duration_s=9, result=RESULT) for one in planned[2:]}
    summary, _ = run(paths, planned, {planned[0].cell.slug: bad, planned[1].cell.slug: bad} | scripts, H200)
    assert summary.counts["failed"] == 2 and summary.counts["ok"] >= 2
    assert sum(summary.counts.values()) == 8


def test_a_verdict_from_before_is_not_overwritten_by_a_cell_that_is_not_started(paths):
    planned = cells(4, brake=2)
    run(paths, planned, {planned[3].cell.slug: Script(exits={0: -11})})
    before = record(paths, planned[3])
    for one in planned[:3]:
        paths.cell(one.cell.slug).record.unlink()
        paths.cell(one.cell.slug).attempt(1).rank(0).unlink()
    summary, _ = run(paths, planned, Script(errors={0: ERROR}), resume=True)
    assert summary.stopped_by == "brake" and record(paths, planned[3]) == before
