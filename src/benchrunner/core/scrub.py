"""This host's name, taken out of the files that a job leaves."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from benchrunner.core.errors import DamagedFile
from benchrunner.core.files import open_regular, write_bytes
from benchrunner.core.text import may_name_host, scrub_hosts
from benchrunner.core.units import MIB

CHUNK_BYTES = MIB
"""A log of any size is read in little memory."""


def scrub_files(paths: Iterable[Path]) -> None:
    """Rewrite those files in which this host is named. Bytes that are no UTF-8 survive; what is no file is left."""
    for path in paths:
        with suppress(FileNotFoundError, DamagedFile):
            if any(_scrubbed(chunk) != chunk for chunk in _chunks(path)):
                write_bytes(path, map(_scrubbed, _chunks(path)))


def _chunks(path: Path) -> Iterator[bytes]:
    with open_regular(path) as file:
        while block := file.read(CHUNK_BYTES):
            yield block + file.readline(CHUNK_BYTES)  # no name is cut in two unless a line is longer still


def _scrubbed(chunk: bytes) -> bytes:
    if not may_name_host(chunk):
        return chunk
    text = chunk.decode("utf-8", errors="surrogateescape")
    return scrub_hosts(text).encode("utf-8", errors="surrogateescape")
