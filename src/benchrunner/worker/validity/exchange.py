"""What ranks tell each other while they check, through the store that they met in and without a collective.

In a collective a rank that failed is waited for, or its next call is taken for the one that it left out. Here values go
by the name of what is asked, so that a failure is heard of and costs no more than the answer.
"""

import itertools
import pickle
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch.distributed.distributed_c10d as c10d

from benchrunner.worker.context import Context

Made = TypeVar("Made")

PATIENCE_S = 55.0
"""A peer that says nothing for so long is stuck or gone. Less than the limit of the phase: see `run/limits.py`."""
LOOK_INTERVAL_S = 0.002

_instances = itertools.count()
"""Of this process; every rank makes as many, so that the number tells the exchanges of two cells apart."""


class PeerFailed(RuntimeError):
    """Another rank could not answer."""


class FailedTogether(PeerFailed):
    """Some rank could not act, and all of them know."""


class PeerSilent(RuntimeError):
    """Another rank said nothing within PATIENCE_S: no check can go on without it."""


class Exchange:
    """The ranks of a cell, talking about one topic after the other."""

    def __init__(self, context: Context) -> None:
        self.rank, self.world_size = context.rank, context.world_size
        self._store = _store(f"checks{next(_instances)}") if self.world_size > 1 else None
        self._topic, self._num_values = "", 0

    @contextmanager
    def topic(self, name: str) -> Iterator[None]:
        """Inside, values are about `name`, which no other topic may be called; an exception is told to the others."""
        self._topic, self._num_values = name, 0
        try:
            yield
        except Exception as error:
            if self._store is not None and not isinstance(error, PeerFailed):
                self._store.set(f"{name}/failed/{self.rank}", _said(error))
            raise

    def gather(self, value: Any) -> list[Any]:
        """Every rank's value, by rank; all ranks must ask within the same topic and in the same order.

        Raises:
            PeerFailed: another rank failed within this topic.
            PeerSilent: another rank neither answers nor fails.
        """
        if self._store is None:
            return [value]
        key = f"{self._topic}/{self._num_values}"
        self._num_values += 1
        self._store.set(f"{key}/{self.rank}", pickle.dumps(value))  # type: ignore[arg-type] # its stub knows text alone
        return [value if rank == self.rank else self._hear(key, rank) for rank in range(self.world_size)]

    def most(self, *values: float) -> tuple[float, ...]:
        """The largest over all ranks of each value; as `gather`."""
        return tuple(max(of_ranks) for of_ranks in zip(*self.gather(values), strict=True))

    def agree(self, what: str, act: Callable[[], object]) -> str | None:
        """Act on every rank; None where all succeeded, else what the first that failed said, to all of them.

        Raises:
            PeerSilent: another rank is still at it: it waits for one that failed.
        """
        with self.topic(what):
            try:
                self.together(act)
            except FailedTogether as failure:
                return f"{what} failed on {failure}"
        return None

    def together(self, make: Callable[[], Made]) -> Made:
        """What `make` returns on this rank, where it succeeds on all: no rank enters a collective alone.

        Raises:
            FailedTogether: it failed on some rank; the same on every rank.
        """
        made: list[Made] = []
        failure = None
        try:
            made.append(make())
        except Exception as error:
            failure = f"rank {self.rank}: {_said(error)}"
        for said in self.gather(failure):
            if said is not None:
                raise FailedTogether(said)
        return made[0]

    def _hear(self, key: str, rank: int) -> Any:
        assert self._store is not None
        failed, deadline_s = f"{self._topic}/failed/{rank}", time.monotonic() + PATIENCE_S
        while not self._store.check([f"{key}/{rank}"]):
            if self._store.check([failed]):
                raise PeerFailed(f"rank {rank} failed: {self._store.get(failed).decode()}")
            if time.monotonic() > deadline_s:
                raise PeerSilent(f"rank {rank} said nothing of {self._topic} for {PATIENCE_S:g} s")
            time.sleep(LOOK_INTERVAL_S)
        return pickle.loads(self._store.get(f"{key}/{rank}"))


def _store(prefix: str) -> c10d.Store:
    """The store of the process group, under names of our own."""
    return c10d.PrefixStore(prefix, c10d._get_default_store())


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
