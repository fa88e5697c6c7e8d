from benchrunner.run.circuit_breaker import CircuitBreaker
from samples import make_cell, make_record, plan_cell


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
