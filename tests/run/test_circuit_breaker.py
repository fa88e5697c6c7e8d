import pytest

from benchrunner.launch.fake import Script
from benchrunner.run.circuit_breaker import CircuitBreaker
from fake_sweeps import ERROR, RESULT, cells, record, run
from samples import H200, make_cell, make_record, plan_cell

NO = "rank 0, in phase build, raised RuntimeError: no"


def failed(seed, reason=NO, status="failed", code="failed.exception", **axes):
    return make_record(make_cell(leaves={"seed": seed}, **axes), status, code, reason)


def ok(seed, **axes):
    return make_record(make_cell(leaves={"seed": seed}, **axes))


def learn(breaker, record, **others):
    """Why no further cell of these options is started after this record; None while they are."""
    breaker.learn(plan_cell(make_cell(leaves=record.overrides, **record.axes)), record)
    outcome = breaker.refusal(plan_cell(make_cell(leaves={"seed": 99}, **others)), 0.0)
    return outcome and outcome.reason


def test_the_same_failure_in_different_cells_opens_it():
    breaker = CircuitBreaker(3, [plan_cell(make_cell(leaves={"seed": seed})) for seed in range(9)])
    assert learn(breaker, failed(0, "rank 0 at 0x7fab: 12.5 GiB")) is None
    assert learn(breaker, failed(1, "rank 3 at 0x1234: 7 GiB")) is None
    why = "the same failure in 3 cells (brake=3): failed.exception: rank 1 at 0x9: 3 GiB"
    assert learn(breaker, failed(2, "rank 1 at 0x9: 3 GiB")) == f"not started, because {why}"
    assert learn(breaker, failed(3, "rank 1 at 0x9: 4 GiB")) == f"not started, because {why}", "the first reason stays"
    refused = breaker.refusal(plan_cell(make_cell()), 0.0)
    assert (refused.status, refused.reason_code, breaker.stopped_by) == ("skipped", "skipped.brake", "brake")


def test_what_counts():
    breaker = CircuitBreaker(2)
    assert learn(breaker, failed(0)) is None
    assert learn(breaker, failed(0)) is None, "the same cell again"
    assert learn(breaker, failed(1, "something else")) is None
    assert learn(breaker, failed(2, code="failed.signal")) is None
    for status in ("ok", "oom", "unsupported", "invalid", "skipped"):
        assert learn(CircuitBreaker(1), failed(3, status=status)) is None
    assert learn(breaker, failed(4, "no progress for 60 s (rank 0 here)", "timeout", "timeout.build")) is None
    assert learn(breaker, failed(5, "no progress for 90 s (rank 1 there)", "timeout", "timeout.build")) is not None


def test_it_is_noted_once_with_the_cells_that_were_not_started():
    breaker = CircuitBreaker(1)
    assert learn(breaker, failed(0)) is not None
    assert breaker.note(0, at_end=False) is None
    assert breaker.note(7, at_end=False).startswith("stopped early, 7 cells were not started: the same failure in 1 ")
    assert breaker.note(8, at_end=True) is None


def test_without_a_limit_it_never_opens():
    breaker = CircuitBreaker(None)
    assert [learn(breaker, failed(seed)) for seed in range(20)] == [None] * 20


# --- what cells that fail alike have in common


def test_it_opens_for_the_cells_like_those_that_failed_alone():
    breaker = CircuitBreaker(2, [plan_cell(make_cell(precision=precision)) for precision in ("fp32", "bf16")])
    learn(breaker, failed(0, precision="fp32"))
    why = "the same failure in 2 cells with precision=fp32 (brake=2): failed.exception: " + NO
    assert learn(breaker, failed(1, precision="fp32"), precision="fp32") == f"not started, because {why}"
    assert learn(breaker, failed(2, precision="fp32"), precision="bf16") is None


def test_the_same_failure_of_others_too_opens_it_for_all():
    breaker = CircuitBreaker(2)
    for seed in range(2):
        learn(breaker, failed(seed, precision="fp32"))
    assert learn(breaker, failed(2, precision="bf16"), precision="fp16-mixed", strategy="ddp") is None
    assert learn(breaker, failed(3, precision="bf16", strategy="ddp"), precision="fp16-mixed", strategy="ddp")


def test_a_failure_of_one_more_kind_does_not_stop_kinds_that_work():
    breaker = CircuitBreaker(2)
    for one in (failed(0, precision="fp32"), failed(1, precision="fp32"), ok(2, precision="bf16")):
        learn(breaker, one)
    assert learn(breaker, failed(3, precision="bf16"), precision="bf16") is None
    assert learn(breaker, ok(4, precision="bf16"), precision="bf16") is None
    assert learn(breaker, ok(4, precision="bf16"), precision="fp32") is not None


def test_a_cell_that_does_not_fail_closes_it_and_begins_the_count_anew():
    breaker = CircuitBreaker(2)
    assert [learn(breaker, one) for one in (failed(0), ok(1), failed(2), ok(3), failed(4))] == [None] * 5
    assert learn(breaker, failed(5)) is not None
    assert learn(breaker, failed(6, status="oom", code="oom.device")) is None, "one that was at work"
    assert learn(breaker, failed(7)) is None
    assert learn(breaker, failed(8)) is not None


def test_a_cell_that_was_never_started_closes_nothing():
    breaker = CircuitBreaker(1)
    assert learn(breaker, failed(0)) is not None
    assert learn(breaker, make_record(make_cell(), "unsupported", "runtime.dtype", attempt=0)) is not None


def test_failures_of_variants_say_nothing_of_the_usual_cell_that_works():
    breaker = CircuitBreaker(2)
    for one in (failed(1), make_record(make_cell()), failed(2)):
        assert learn(breaker, one) is None


def test_the_only_cell_closes_it_by_itself():
    breaker = CircuitBreaker(1, [plan_cell(make_cell(leaves={"seed": 99}))])
    assert learn(breaker, failed(99)) is not None
    assert learn(breaker, ok(99)) is None


def test_what_worked_before_the_first_failure_proves_nothing():
    breaker = CircuitBreaker(2)
    for one in (ok(0, precision="bf16"), failed(1, precision="fp32"), failed(2, precision="fp32")):
        learn(breaker, one)
    assert learn(breaker, failed(3, precision="bf16"), precision="bf16") is not None, "all that was tried since failed"


# --- through the loop


@pytest.mark.parametrize("num_runs", [1, 2])
def test_cells_that_fail_do_not_keep_healthy_ones_from_running(paths, num_runs):
    planned = [plan_cell(make_cell(precision=p, leaves={"seed": s})) for p in ("fp32", "bf16") for s in range(7)]
    bad = {one.cell.slug: Script(errors={0: ERROR}) for one in planned[:7]}
    for number in range(num_runs):
        summary, _ = run(paths, planned, bad, resume=number > 0)
    assert summary.counts == ({"failed": 5, "skipped": 2, "ok": 7} if num_runs == 1 else {"failed": 7, "ok": 7})
    assert [record(paths, one)["status"] for one in planned[7:]] == ["ok"] * 7


def test_a_resume_begins_with_what_has_not_failed_yet(paths):
    """Also where nothing tells the broken cells from the healthy ones."""
    planned = cells(12)
    bad = {one.cell.slug: Script(errors={0: ERROR}) for one in planned[:5]}
    assert run(paths, planned, bad)[0].counts == {"failed": 5, "skipped": 7}
    summary, launcher = run(paths, planned, bad, resume=True)
    assert [handle.job.cell.config.seed for handle in launcher.handles] == [5, 6, 7, 8, 9, 10, 11, 0, 1, 2, 3, 4]
    assert summary.counts == {"failed": 5, "ok": 7}


def test_an_open_breaker_stops_the_sweep_and_keeps_every_verdict(paths, capsys):
    planned = cells(12, brake=3)
    bad = {one.cell.slug: Script(errors={0: ERROR}) for one in planned[2:]}
    summary, launcher = run(paths, planned, bad)
    assert len(launcher.handles) == 5 and summary.exit_code == 2 and summary.stopped_by == "brake"
    assert summary.counts == {"ok": 2, "failed": 3, "skipped": 7}
    made = record(paths, planned[11])
    assert made["reason_code"] == "skipped.brake" and "the same failure in 3 cells" in made["reason"]
    assert "stopped early, 7 cells were not started" in capsys.readouterr().err
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
