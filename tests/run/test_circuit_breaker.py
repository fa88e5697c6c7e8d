from benchrunner.run.circuit_breaker import CircuitBreaker
from samples import make_cell, make_record


def failed(seed, reason="rank 0, in phase build, raised RuntimeError: no", status="failed", code="failed.exception"):
    return make_record(make_cell(leaves={"seed": seed}), status, code, reason)


def test_the_same_failure_in_different_cells_pulls_it():
    brake = CircuitBreaker(3)
    assert brake.see(failed(0, "rank 0 at 0x7fab: 12.5 GiB")) is None
    assert brake.see(failed(1, "rank 3 at 0x1234: 7 GiB")) is None
    why = brake.see(failed(2, "rank 1 at 0x9: 3 GiB"))
    assert why == "the same failure in 3 cells (brake=3): failed.exception: rank 1 at 0x9: 3 GiB"


def test_what_counts():
    brake = CircuitBreaker(2)
    assert brake.see(failed(0)) is None
    assert brake.see(failed(0)) is None, "the same cell again"
    assert brake.see(failed(1, "something else")) is None
    assert brake.see(failed(2, code="failed.signal")) is None
    for status in ("ok", "oom", "unsupported", "invalid", "skipped"):
        assert brake.see(failed(3, status=status)) is None
    assert brake.see(failed(4, "no progress for 60 s (rank 0 here)", "timeout", "timeout.build")) is None
    assert brake.see(failed(5, "no progress for 90 s (rank 1 there)", "timeout", "timeout.build")) is not None


def test_without_a_limit_it_is_never_pulled():
    brake = CircuitBreaker(None)
    assert [brake.see(failed(seed)) for seed in range(20)] == [None] * 20
