"""Which worker has which cell: files on a file system that all share, each made by one atomic link and never changed.

`PLACE.N.claim` is the N-th claim of a cell (its place: see `PlannedCell.place`) and `PLACE.done` its end. Who has the
highest number has the cell. The next number can be made by one alone, and is tried only when the one before
belongs to a worker that is gone.
"""

import os
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from typing_extensions import TypedDict

from benchrunner.core.errors import DamagedFile
from benchrunner.core.files import read_json, write_json
from benchrunner.core.paths import NUMBER
from benchrunner.core.units import MIB

CLAIM, DONE = ".claim", ".done"
BELOW = "@"
"""In a name, for the slash of a place: no slug has it."""


class Claim(TypedDict):
    """What a claim says."""

    worker: str
    number: int
    attempts: int
    """How many attempts the cell had before."""


class Claims:
    """The claims of one round over a sweep. `is_gone` tells whether what a worker has is anybody's."""

    def __init__(self, home: Path, worker: str, is_gone: Callable[[str], bool]) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self.finished: set[str] = set()
        """Places of the cells that have their verdict."""
        self._home, self._worker, self._is_gone = home, worker, is_gone
        self._latest: dict[str, Claim] = {}

    def look(self) -> None:
        """See what the others have done."""
        newest: dict[str, int] = {}
        for name in os.listdir(self._home):
            if name.endswith(DONE):
                self.finished.add(_place(name.removesuffix(DONE)))
            elif name.endswith(CLAIM):
                named, _, number = name.removesuffix(CLAIM).rpartition(".")
                if NUMBER.fullmatch(number):
                    newest[_place(named)] = max(newest.get(_place(named), 0), int(number))
        for place, latest in newest.items():
            if place not in self.finished and latest > self._number(place):
                self._read(place, latest)

    def owner(self, place: str) -> str | None:
        """The worker that has a cell, as far as is known."""
        claim = self._latest.get(place)
        return claim["worker"] if claim else None

    def is_open(self, place: str) -> bool:
        """Whether the cell may be there for the taking."""
        owner = self.owner(place)
        return place not in self.finished and (owner in (None, self._worker) or self._is_gone(str(owner)))

    def take(self, place: str, attempts: int) -> bool:
        """Whether the cell is this worker's from now on."""
        if not self.is_open(place):
            return False
        if self.owner(place) == self._worker:
            return True
        number = self._number(place) + 1
        if not self._link(
            f"{_name(place)}.{number}{CLAIM}", Claim(worker=self._worker, number=number, attempts=attempts)
        ):
            self._read(place, number)
            return False
        if (self._home / f"{_name(place)}{DONE}").exists():  # its last owner had finished it before it went
            self.finished.add(place)
            return False
        self._latest[place] = Claim(worker=self._worker, number=number, attempts=attempts)
        return True

    def before(self, place: str) -> Claim | None:
        """The claim before the one that holds: of a worker that has gone."""
        number = self._number(place) - 1
        return _read_claim(self._home / f"{_name(place)}.{number}{CLAIM}") if number > 0 else None

    def finish(self, place: str) -> None:
        """The cell has its verdict; nobody takes it any more in this round."""
        self.finished.add(place)
        self._link(f"{_name(place)}{DONE}", Claim(worker=self._worker, number=self._number(place), attempts=0))

    def _number(self, place: str) -> int:
        claim = self._latest.get(place)
        return claim["number"] if claim else 0

    def _read(self, place: str, number: int) -> None:
        claim = _read_claim(self._home / f"{_name(place)}.{number}{CLAIM}")
        if claim is not None and number > self._number(place):
            self._latest[place] = claim

    def _link(self, name: str, claim: Claim) -> bool:
        """Make a file that is complete from its first moment; False: there is one of this name already."""
        temporary = self._home / f".{uuid.uuid4().hex}.tmp"
        write_json(temporary, claim, sync=False)
        try:
            with suppress(FileExistsError):
                os.link(temporary, self._home / name)
            # NFS repeats a request whose answer was lost, and then says that the name exists: the count does not lie.
            return os.stat(temporary).st_nlink == 2
        finally:
            temporary.unlink(missing_ok=True)


def _read_claim(path: Path) -> Claim | None:
    with suppress(FileNotFoundError, DamagedFile):
        return read_json(path, Claim, limit_bytes=MIB)
    return None


def _name(place: str) -> str:
    return place.replace("/", BELOW)


def _place(name: str) -> str:
    return name.replace(BELOW, "/")
