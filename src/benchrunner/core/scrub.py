"""This host's name and the secrets of its environment, taken out of the files that a job leaves."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchrunner.core.errors import DamagedFile
from benchrunner.core.files import open_regular, read_bytes, write_bytes, write_json
from benchrunner.core.plain_json import DEFAULT_LIMIT_BYTES, parse
from benchrunner.core.secrets import redact
from benchrunner.core.text import may_name_host, scrub_hosts
from benchrunner.core.units import MIB

CHUNK_BYTES = MIB
"""A log of any size is read in little memory."""


FREE_TEXT = ("error", "result")
"""Where a rank's file holds what libraries said; the rest of it is ours, and may be a word like any host's name."""


def scrub_files(paths: Iterable[Path]) -> bool:
    """Rewrite those files in which this host is named or a secret stands. Bytes that are no UTF-8 survive.

    What is no file is left, and so is what cannot be read or written; returns whether there was none of the latter.
    """
    is_whole = True
    for path in paths:
        try:
            if any(_scrubbed(chunk) != chunk for chunk in _chunks(path)):
                _rewrite(path)
        except (FileNotFoundError, DamagedFile):
            continue
        except OSError:
            is_whole = False
    return is_whole


def _rewrite(path: Path) -> None:
    if path.suffix == ".json":
        with suppress(DamagedFile):  # of no form: a log like any other
            document = parse(read_bytes(path, limit_bytes=DEFAULT_LIMIT_BYTES))
            if isinstance(document, dict):
                free = {key: _scrubbed_document(document[key]) for key in FREE_TEXT if key in document}
                return write_json(path, {**document, **free})
    return write_bytes(path, map(_scrubbed, _chunks(path)))


def _scrubbed_document(value: Any) -> Any:
    if isinstance(value, str):
        return scrub_text(value)
    if isinstance(value, dict):
        return {key: _scrubbed_document(part) for key, part in value.items()}
    return [_scrubbed_document(part) for part in value] if isinstance(value, list) else value


def _chunks(path: Path) -> Iterator[bytes]:
    with open_regular(path) as file:
        while block := file.read(CHUNK_BYTES):
            yield block + file.readline(CHUNK_BYTES)  # no name is cut in two unless a line is longer still


def _scrubbed(chunk: bytes) -> bytes:
    return scrub_text(chunk.decode("utf-8", errors="surrogateescape")).encode("utf-8", errors="surrogateescape")


def scrub_text(text: str) -> str:
    """`text` without this host's name and without secrets."""
    text = redact(text)
    return scrub_hosts(text) if may_name_host(text) else text
