import pytest

from benchrunner.core.errors import SweepDirError
from benchrunner.run.attendance import BEAT_INTERVAL_S, LEASE_S, Attendance
from benchrunner.store.workers import WorkerFile, declare_gone, is_gone, read_worker, write_worker


def worker(paths, name="own", **more):
    found = Attendance(paths, WorkerFile(worker=name, **more))
    found.begin()
    return found


def test_a_sign_of_life_is_given_now_and_then(paths):
    own = worker(paths)
    seen = []
    for now_s in (0.0, BEAT_INTERVAL_S - 0.1, BEAT_INTERVAL_S, 2 * BEAT_INTERVAL_S - 0.1):
        own.beat(now_s, [f"cell-{now_s}"])
        shown = read_worker(paths, "own")
        seen.append((shown.beats, shown.running))
    first, second = (1, ["cell-0.0"]), (2, [f"cell-{BEAT_INTERVAL_S}"])
    assert seen == [first, first, second, second]


def test_who_was_in_the_same_allocation_before_it_began_again_is_gone(paths):
    for name, job, state in (("before", "7", "working"), ("left", "7", "left"), ("other", "8", "working")):
        write_worker(paths, WorkerFile(worker=name, job=job, state=state))
    worker(paths, job="7")
    assert [is_gone(paths, name) for name in ("before", "left", "other", "own")] == [True, False, False, False]
    assert read_worker(paths, "own").job == "7"


def test_without_an_allocation_nobody_is_taken_for_an_earlier_self(paths):
    write_worker(paths, WorkerFile(worker="other"))
    worker(paths)
    assert not is_gone(paths, "other")


def test_one_whom_the_others_gave_up_writes_nothing_more(paths):
    own = worker(paths)
    declare_gone(paths, "own")
    with pytest.raises(SweepDirError, match="this worker gave no sign of life for too long; others go on"):
        own.beat(0.0, [])
    assert read_worker(paths, "own").beats == 0


def test_one_who_is_silent_for_long_is_declared_gone(paths):
    own, other = worker(paths), worker(paths, "other")
    own.look("other", 10.0)
    assert not own.is_alive("other"), "it was seen once, and may be dead"
    other.beat(0.0, [])
    own.look("other", 50.0)
    assert own.is_alive("other")
    own.look("other", 50.0 + LEASE_S - 0.1)
    assert not own.is_gone("other") and not is_gone(paths, "other")
    own.look("other", 50.0 + LEASE_S)
    assert own.is_gone("other") and is_gone(paths, "other") and not own.is_alive("other")


def test_one_who_never_shows_itself_is_declared_gone_as_well(paths):
    own = worker(paths)
    own.look("nobody", 1.0)
    own.look("nobody", 1.0 + LEASE_S)
    assert own.is_gone("nobody") and not own.is_alive("nobody")


def test_one_who_left_or_was_declared_gone_by_others_is_gone_at_once(paths):
    own, leaving = worker(paths), worker(paths, "leaving")
    leaving.beat(0.0, ["cell"])
    leaving.leave()
    declare_gone(paths, "declared")
    for name in ("leaving", "declared"):
        own.look(name, 1.0)
        assert own.is_gone(name)
    shown = read_worker(paths, "leaving")
    assert (shown.state, shown.running, is_gone(paths, "leaving")) == ("left", [], False)
