import os

import pytest

from benchrunner.run.claims import Claims

PLACE = "llama-7b/repeat-2"


@pytest.fixture
def workers(tmp_path):
    """Claims as two workers see them, and the set of those that are gone."""
    gone = set()
    one, other = (Claims(tmp_path, name, gone.__contains__) for name in ("one", "other"))
    return one, other, gone


def taken_by_one_who_is_gone(one, gone, *others, place=PLACE, attempts=0):
    """The others have seen it take the place."""
    assert one.take(place, attempts)
    for other in others:
        other.look()
    gone.add("one")


def test_a_cell_is_taken_by_one_alone(workers):
    one, other, _ = workers
    assert one.take(PLACE, 0) and one.take(PLACE, 0) and not other.take(PLACE, 0)
    assert one.owner(PLACE) == other.owner(PLACE) == "one" and not other.is_open(PLACE)
    assert not other.take(PLACE, 0), "now that it knows"
    assert one.before(PLACE) is None, "it is claimed once"


def test_what_somebody_who_is_gone_had_is_taken_by_one_alone(workers, tmp_path):
    one, other, gone = workers
    third = Claims(tmp_path, "third", gone.__contains__)
    taken_by_one_who_is_gone(one, gone, other, third, attempts=4)
    assert other.take(PLACE, 5) and not third.take(PLACE, 5)
    assert other.before(PLACE) == {"worker": "one", "number": 1, "attempts": 4} and third.owner(PLACE) == "other"


@pytest.mark.parametrize("backwards", [False, True])
def test_of_several_claims_the_highest_number_counts_in_whatever_order_they_are_listed(
    workers, tmp_path, monkeypatch, backwards
):
    one, other, gone = workers
    taken_by_one_who_is_gone(one, gone, other, place="lr-0.5")
    assert other.take("lr-0.5", 1)
    names = sorted(os.listdir(tmp_path), reverse=backwards)
    monkeypatch.setattr(os, "listdir", lambda path: names)
    third = Claims(tmp_path, "third", gone.__contains__)
    third.look()
    assert third.owner("lr-0.5") == "other"


def test_what_was_finished_since_the_last_look_is_not_taken(workers):
    one, other, gone = workers
    assert one.take(PLACE, 0)
    other.look()
    one.finish(PLACE)
    gone.add("one")
    assert not other.take(PLACE, 0) and PLACE in other.finished and not other.is_open(PLACE)


def test_a_server_that_says_twice_that_it_made_the_link_is_not_believed_to_have_refused(workers, monkeypatch):
    one, _, _ = workers

    def link(source, target, link=os.link):
        link(source, target)
        raise FileExistsError

    monkeypatch.setattr(os, "link", link)
    assert one.take(PLACE, 0)


def test_a_claim_that_cannot_be_read_is_nobodys_for_now(workers, tmp_path):
    one, other, _ = workers
    assert one.take(PLACE, 0)
    next(tmp_path.glob("*.claim")).write_text("{")
    other.look()
    assert other.owner(PLACE) is None and not other.take(PLACE, 0)


def test_until_a_later_claim_can_be_read_the_one_before_counts(workers, tmp_path):
    one, other, gone = workers
    third = Claims(tmp_path, "third", gone.__contains__)
    taken_by_one_who_is_gone(one, gone, other, third)
    assert third.take(PLACE, 1)
    next(tmp_path.glob("*.2.claim")).write_text("{")
    other.look()
    assert other.owner(PLACE) == "one" and not other.take(PLACE, 0)
