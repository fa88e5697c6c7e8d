"""The one reader and writer of a sweep's files.

Written: a reader sees the old file or the new one, never a part. Read: what a file says or is can neither block, crash
nor fill this process; what is wrong with it is one short sentence.
"""

import errno
import json
import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO, TypeVar

from benchrunner.core.errors import DamagedFile, OtherVersion
from benchrunner.core.plain_json import parse
from benchrunner.core.units import MIB

if TYPE_CHECKING:
    from pydantic import TypeAdapter, ValidationError

T = TypeVar("T")

MOST_LISTED = 1000
"""With more problems than this a document is another one altogether, and listing them takes longer than reading it."""

NUM_REREADS = 3
"""So often a file is opened whose handle is stale."""

# --- writing -------------------------------------------------------------------------------------------------------


def write_json(path: Path, value: Any, *, indent: int | None = 1, sync: bool = True) -> None:
    """Write `value` so that a reader sees the old file or the new one, never a part.

    `sync=False` is for what can be written again from other files: it need not survive a power cut.

    Raises:
        ValueError: the value holds NaN or infinity, which JSON cannot carry.
    """
    write_text(path, json.dumps(value, indent=indent, allow_nan=False) + "\n", sync=sync)


def write_text(path: Path, text: str, *, sync: bool = True) -> None:
    """Atomic write: a temporary file beside `path`, synced, then renamed over it."""
    write_bytes(path, [text.encode("utf-8")], sync=sync)


def write_bytes(path: Path, chunks: Iterable[bytes], *, sync: bool = True) -> None:
    """The same for bytes that come one piece after the other."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.writelines(chunks)
            file.flush()
            if sync:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_output(path: Path, text: str) -> None:
    """A file that a user names for other programs: a new one as above, and what else is there in its place.

    A pipe, a device or a link such as /dev/stdout is written into and never replaced.

    Raises:
        OSError: it cannot be written, or it is a pipe that nobody reads.
    """
    if path.is_symlink() or (path.exists() and not path.is_file()):
        with open_output(path, append=path.is_relative_to("/dev")) as file:
            file.write(text)
    else:
        write_text(path, text)


def open_output(path: Path, *, append: bool, waits: bool = True) -> TextIO:
    """The same opened for writing, without waiting for somebody to read it; `waits`: when it is written, if it is full.

    Raises:
        OSError: it cannot be opened, or it is a pipe that nobody reads.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    descriptor = os.open(path, flags | (os.O_APPEND if append else os.O_TRUNC), 0o666)
    os.set_blocking(descriptor, waits)
    return open(descriptor, "w", encoding="utf-8")


# --- reading -------------------------------------------------------------------------------------------------------


def read_json(path: Path, kind: type[T], *, limit_bytes: int, version: int | None = None) -> T:
    """The document in a file as the dataclass or TypedDict `kind`: unknown keys are left out, types are not converted.

    `version`: what its `schema_version` has to be.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedFile: anything else that is wrong with it.
    """
    return decode(read_bytes(path, limit_bytes=limit_bytes), kind, limit_bytes=limit_bytes, version=version)


def read_bytes(path: Path, *, limit_bytes: int) -> bytes:
    """The whole of a regular file.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedFile: it cannot be read, is larger than `limit_bytes`, or is no regular file.
    """
    for _ in range(NUM_REREADS):
        with suppress(_Stale):
            return _read_once(path, limit_bytes)
    raise DamagedFile(f"it cannot be read ({os.strerror(errno.ESTALE)})")


class _Stale(DamagedFile):
    """The file was replaced on its server while this host had it open: opened again it can be read."""


def _read_once(path: Path, limit_bytes: int) -> bytes:
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit_bytes:
            raise DamagedFile(f"it is {size / MIB:,.0f} MiB large, at most {limit_bytes / MIB:,.0f} are read")
        try:
            return file.read(size)
        except OSError as error:
            raise _unreadable(error) from error


def _unreadable(error: OSError) -> DamagedFile:
    return (_Stale if error.errno == errno.ESTALE else DamagedFile)(f"it cannot be read ({error.strerror})")


def open_regular(path: Path) -> BinaryIO:
    """A regular file, opened for reading without waiting for anybody.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedFile: it cannot be opened, or something else is in its place.
    """
    try:
        _require_regular(os.stat(path).st_mode)  # opening a FIFO or a device can already do something
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except FileNotFoundError:
        if path.is_symlink():
            raise DamagedFile("a link to nothing is in its place") from None
        raise
    except OSError as error:
        raise _unreadable(error) from error
    try:
        _require_regular(os.fstat(descriptor).st_mode)  # it may have been replaced in between
    except DamagedFile:
        os.close(descriptor)
        raise
    return open(descriptor, "rb")


def _require_regular(mode: int) -> None:
    if stat.S_ISREG(mode):
        return
    named = {stat.S_IFDIR: "a directory", stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket"}
    raise DamagedFile(f"{named.get(stat.S_IFMT(mode), 'a device')} is in its place")


# --- decoding ------------------------------------------------------------------------------------------------------


def decode(text: bytes, kind: type[T], *, limit_bytes: int = 64 * MIB, version: int | None = None) -> T:
    """A JSON document as `kind`: see `read_json`.

    Raises:
        DamagedFile: it is none.
    """
    plain = parse(text, limit_bytes=limit_bytes)
    if version is not None:
        _require_version(plain, version)
    from pydantic import ValidationError  # takes as long to import as a hundred records to read

    try:
        return _adapter(kind).validate_json(text, strict=True)
    except ValidationError as error:
        problem = _first_problem(error, plain)
    raise DamagedFile(problem)


def _adapter(kind: type[T]) -> "TypeAdapter[T]":
    from pydantic import TypeAdapter

    if kind not in _ADAPTERS:
        _ADAPTERS[kind] = TypeAdapter(kind)
    return _ADAPTERS[kind]


_ADAPTERS: "dict[type[Any], TypeAdapter[Any]]" = {}


def json_schema(kind: type[Any]) -> dict[str, Any]:
    """The JSON Schema of what `decode` takes as `kind`."""
    return _adapter(kind).json_schema()


def _require_version(plain: Any, version: int) -> None:
    found = plain.get("schema_version") if isinstance(plain, dict) else None
    if type(found) is not int or found != version:
        raise OtherVersion(f"schema_version {found!r}, this benchrunner reads {version}")


def _first_problem(error: "ValidationError", plain: Any) -> str:
    """`metrics.mfu: input should be a valid number`, of the first thing that is wrong."""
    if error.error_count() > MOST_LISTED:
        return f"{error.error_count()} values are not what they should be"
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = _place(first["loc"], plain, is_missing=first["type"] == "missing")
    message = first["msg"][:1].lower() + first["msg"][1:]
    return f"{place}: {message}" if place else message


def _place(location: Sequence[int | str], plain: Any, *, is_missing: bool) -> str:
    """The part of a location that the document has; what follows are names of types."""
    place: list[str] = []
    for part in location:
        has = part in plain if isinstance(plain, Mapping) else isinstance(plain, list) and isinstance(part, int)
        if has:
            plain = plain[part]
        elif not is_missing:
            break
        place.append(str(part))
    return ".".join(place)
