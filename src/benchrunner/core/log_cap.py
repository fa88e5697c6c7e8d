"""What a job writes into its logs costs neither disk nor time: of a long log its head and its tail are kept.

Ranks append to files of their own, so that nobody stands between them and what a dying process writes last. Whoever
watches the job gives the middle back to the file system while it grows, and cuts it out when the job has gone.
"""

import ctypes
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from benchrunner.core.errors import DamagedFile
from benchrunner.core.files import open_regular, write_bytes
from benchrunner.core.units import MIB

HEAD_BYTES, TAIL_BYTES = MIB // 2, 2 * MIB
"""Kept of a log."""

SLACK_BYTES = 8 * MIB
"""A log may be so much longer before its middle is given back."""

BLOCK_BYTES = 1 << 16
"""Holes begin and end at multiples of this, a multiple of every file system's block."""

FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE = 1, 2
"""<linux/falloc.h>"""


class LogCap:
    """The logs of one running job."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self._holes = {path: _up(HEAD_BYTES) for path in paths}
        """Path → the end of the hole in it."""

    def trim(self) -> None:
        """Give the middle of the logs that have grown too long back to the file system."""
        for path, begin in self._holes.items():
            with suppress(OSError):
                size = os.stat(path, follow_symlinks=False).st_size
                if size > begin + TAIL_BYTES + SLACK_BYTES:
                    self._holes[path] = _punch(path, begin, size)


def _punch(path: Path, begin: int, size: int) -> int:
    """The new end of the hole; where the file system has no holes the log loses what it holds by now, but its head."""
    end = (size - TAIL_BYTES) // BLOCK_BYTES * BLOCK_BYTES
    descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if _fallocate(descriptor, begin, end - begin):
            return end
        os.ftruncate(descriptor, _up(HEAD_BYTES))
        return _up(HEAD_BYTES)
    finally:
        os.close(descriptor)


def _fallocate(descriptor: int, begin: int, length: int) -> bool:
    call = ctypes.CDLL(None, use_errno=True).fallocate
    mode = FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE
    return bool(call(descriptor, mode, ctypes.c_long(begin), ctypes.c_long(length)) == 0)


def _up(size: int) -> int:
    return -(-size // BLOCK_BYTES) * BLOCK_BYTES


def shorten_files(paths: Iterable[Path]) -> None:
    """Cut the middle out of those files that are too long, once nobody writes into them any more."""
    for path in paths:
        with suppress(OSError, DamagedFile):
            if path.stat().st_size > _up(HEAD_BYTES) + TAIL_BYTES:
                write_bytes(path, _ends(path))


def _ends(path: Path) -> Iterator[bytes]:
    with open_regular(path) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        head = file.read(HEAD_BYTES)
        file.seek(size - TAIL_BYTES)
        tail = file.read(TAIL_BYTES)
    yield head
    yield f"\n… {size - len(head) - len(tail):,} bytes of this log were not kept …\n".encode()
    yield tail
