"""Which worker has which cell: files on a file system that all share, each made by one atomic link and never changed.

`SLUG.N.claim` is the N-th claim of a cell and `SLUG.done` its end. Who has the highest number has the cell. The next
number can be made by one alone, and is tried only when the one before belongs to a worker that is gone.
"""

import os
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from typing_extensions import TypedDict

from benchrunner.core.errors import DamagedFile
from benchrunner.core.files import read_json, write_json
from benchrunner.core.units import MIB

CLAIM, DONE = ".claim", ".done"


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
        """Slugs of the cells that have their verdict."""
        self._home, self._worker, self._is_gone = home, worker, is_gone
        self._latest: dict[str, Claim] = {}

    def look(self) -> None:
        """See what the others have done."""
        newest: dict[str, int] = {}
        for name in os.listdir(self._home):
            if name.endswith(DONE):
                self.finished.add(name.removesuffix(DONE))
            elif name.endswith(CLAIM):
                slug, _, number = name.removesuffix(CLAIM).rpartition(".")
                newest[slug] = max(newest.get(slug, 0), int(number))
        for slug, latest in newest.items():
            if slug not in self.finished and latest > self._number(slug):
                self._read(slug, latest)

    def owner(self, slug: str) -> str | None:
        """The worker that has a cell, as far as is known."""
        claim = self._latest.get(slug)
        return claim["worker"] if claim else None

    def is_open(self, slug: str) -> bool:
        """Whether the cell may be there for the taking."""
        owner = self.owner(slug)
        return slug not in self.finished and (owner in (None, self._worker) or self._is_gone(str(owner)))

    def take(self, slug: str, attempts: int) -> bool:
        """Whether the cell is this worker's from now on."""
        if not self.is_open(slug):
            return False
        if self.owner(slug) == self._worker:
            return True
        number = self._number(slug) + 1
        if not self._link(f"{slug}.{number}{CLAIM}", Claim(worker=self._worker, number=number, attempts=attempts)):
            self._read(slug, number)
            return False
        if (self._home / f"{slug}{DONE}").exists():  # its last owner had finished it before it went
            self.finished.add(slug)
            return False
        self._latest[slug] = Claim(worker=self._worker, number=number, attempts=attempts)
        return True

    def before(self, slug: str) -> Claim | None:
        """The claim before the one that holds: of a worker that has gone."""
        number = self._number(slug) - 1
        return _read_claim(self._home / f"{slug}.{number}{CLAIM}") if number > 0 else None

    def finish(self, slug: str) -> None:
        """The cell has its verdict; nobody takes it any more in this round."""
        self.finished.add(slug)
        self._link(f"{slug}{DONE}", Claim(worker=self._worker, number=self._number(slug), attempts=0))

    def _number(self, slug: str) -> int:
        claim = self._latest.get(slug)
        return claim["number"] if claim else 0

    def _read(self, slug: str, number: int) -> None:
        claim = _read_claim(self._home / f"{slug}.{number}{CLAIM}")
        if claim is not None and number > self._number(slug):
            self._latest[slug] = claim

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
