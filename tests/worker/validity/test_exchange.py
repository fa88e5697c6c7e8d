"""Ranks hear of each other's failures instead of waiting for them."""

import threading
from types import SimpleNamespace

import pytest
import torch.distributed as dist

from benchrunner.worker.validity import exchange
from benchrunner.worker.validity.exchange import Exchange, FailedTogether, PeerFailed, PeerSilent


@pytest.fixture
def ranks(monkeypatch):
    """Runs a function of an exchange on each of three ranks, in threads; returns what became of each."""
    store = dist.HashStore()
    monkeypatch.setattr(exchange, "_store", lambda prefix: store)

    def run(act, world_size=3):
        found = [None] * world_size

        def one(rank):
            try:
                found[rank] = act(Exchange(SimpleNamespace(rank=rank, world_size=world_size)), rank)
            except Exception as error:
                found[rank] = error

        threads = [threading.Thread(target=one, args=(rank,)) for rank in range(world_size)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return found

    return run


def test_every_rank_gets_every_value_by_rank(ranks):
    def act(talk, rank):
        with talk.topic("sizes"):
            return talk.gather(rank), talk.gather({"a": rank})

    expected = [0, 1, 2], [{"a": 0}, {"a": 1}, {"a": 2}]
    assert ranks(act) == [expected] * 3


def test_a_rank_that_fails_between_two_questions_is_heard_of(ranks):
    def act(talk, rank):
        with talk.topic("first"):
            talk.gather(rank)
            if rank == 1:
                raise ZeroDivisionError("of all things")
            talk.gather(rank)

    found = ranks(act)
    assert isinstance(found[1], ZeroDivisionError)
    assert all(isinstance(found[rank], PeerFailed) and "ZeroDivisionError" in str(found[rank]) for rank in (0, 2))


def test_the_next_topic_starts_anew_after_a_failure(ranks):
    def act(talk, rank):
        try:
            with talk.topic("first"):
                if rank == 1:
                    raise ZeroDivisionError
                talk.gather("about the first")
        except (ZeroDivisionError, PeerFailed):
            pass
        with talk.topic("second"):
            return talk.gather(rank)

    assert ranks(act) == [[0, 1, 2]] * 3


def test_all_agree_on_the_failure_of_one(ranks):
    def act(talk, rank):
        return talk.agree("the probe", lambda: 1 / (rank - 2)), talk.agree("the next", lambda: None)

    assert ranks(act) == [("the probe failed on rank 2: ZeroDivisionError: division by zero", None)] * 3


def test_a_rank_that_never_comes_is_given_up(ranks, monkeypatch):
    monkeypatch.setattr(exchange, "PATIENCE_S", 0.05)

    def act(talk, rank):
        if rank == 0:
            return None
        return talk.agree("the probe", lambda: None)

    assert all(isinstance(found, PeerSilent) for found in ranks(act)[1:])


def test_alone_there_is_nobody_to_wait_for():
    talk = Exchange(SimpleNamespace(rank=0, world_size=1))
    assert talk.gather(7) == [7] and talk.agree("the probe", lambda: None) is None


def test_what_fails_on_one_rank_is_made_on_none(ranks):
    def act(talk, rank):
        with talk.topic("a question"):
            made = talk.together(lambda: rank)
            with pytest.raises(FailedTogether, match="rank 2: ZeroDivisionError"):
                talk.together(lambda: 1 / (rank - 2))
            return made, talk.gather(rank)

    assert ranks(act) == [(rank, [0, 1, 2]) for rank in range(3)]
