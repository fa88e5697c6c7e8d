"""The lock of a sweep: the status and reason code that are expected of every cell, a reviewable line each."""

import json
from collections import Counter
from collections.abc import Iterable
from difflib import unified_diff
from pathlib import Path
from typing import Any

import yaml
from typing_extensions import TypedDict

from benchrunner.compare.side import MeasuredCell, Side
from benchrunner.core.errors import DamagedFile, SweepDirError, UsageError
from benchrunner.core.files import decode, read_bytes, write_text
from benchrunner.core.paths import CHECKOUT, config_dir
from benchrunner.core.record import Status
from benchrunner.core.text import first_line
from benchrunner.core.units import MIB
from benchrunner.store.runs import BAD_STATUSES

SCHEMA_VERSION = 1
SUFFIX = ".lock"
"""Not .yaml: Hydra would offer it as one more sweep."""

LOCK_BYTES = 64 * MIB

HEADER = """\
# What is expected of every cell of the sweep `{sweep}`. `bench lock DIR` writes this file from a finished sweep and
# shows what has changed; `bench verify DIR` holds a sweep to it.
"""


class Expected(TypedDict):
    """What is expected of one cell."""

    status: Status
    reason_code: str | None
    cell_id: str
    cell: str
    """Its slug, for the reader: the id is what counts."""


class LockFile(TypedDict):
    """The whole file."""

    schema_version: int
    sweep: str
    hardware: str
    cells: list[Expected]


def lock_of(side: Side) -> LockFile:
    """The lock that a finished sweep gives.

    Raises:
        SweepDirError: some cell has no verdict yet.
    """
    waiting = [cell for cell in side.matrix.values() if not cell.is_settled]
    if waiting:
        first, count = waiting[0], f"{len(waiting)} of {len(side.matrix)}"
        what = f"{count} cells have no verdict yet ({first.slug}: {first.reason})"
        raise SweepDirError(f"{side.paths.root}: {what}; bench resume {side.paths.root} runs them")
    return LockFile(
        schema_version=SCHEMA_VERSION,
        sweep=side.plan.sweep_name,
        hardware=side.plan.hardware.name,
        cells=[expected_of(cell) for cell in side.matrix.values()],
    )


def expected_of(cell: MeasuredCell) -> Expected:
    """What a cell's verdict makes of the next one."""
    status: Any = cell.status
    identity = cell.planned.cell.cell_id
    return Expected(status=status, reason_code=cell.reason_code, cell_id=identity, cell=cell.slug)


def lock_text(lock: LockFile) -> str:
    """The file's content: YAML with a line a cell, in the order of the plan."""
    head = f"schema_version: {lock['schema_version']}\nsweep: {_quoted(lock['sweep'])}\n"
    head += f"hardware: {_quoted(lock['hardware'])}\ncells:\n"
    return HEADER.format(sweep=lock["sweep"]) + head + "".join(f"{_line(one)}\n" for one in lock["cells"])


def _line(one: Expected) -> str:
    code = "" if one["reason_code"] is None else f", reason_code: {_quoted(one['reason_code'])}"
    return f"  - {{cell_id: {_quoted(one['cell_id'])}, status: {one['status']}{code}, cell: {_quoted(one['cell'])}}}"


def _quoted(text: str) -> str:
    """An id of digits alone would be read as a number."""
    return json.dumps(text, ensure_ascii=False)


def read_lock(path: Path) -> LockFile:
    """The lock in a file.

    Raises:
        UsageError: there is none, or it is damaged.
    """
    try:
        plain = _with_reasons(yaml.safe_load(read_bytes(path, limit_bytes=LOCK_BYTES)))
        lock = decode(json.dumps(plain).encode(), LockFile, version=SCHEMA_VERSION)
    except FileNotFoundError as error:
        raise UsageError(f"{path}: no such file; bench lock DIR writes it from a finished sweep") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not YAML: {first_line(str(error))}") from error
    except (DamagedFile, TypeError, RecursionError) as error:
        raise UsageError(f"{path}: not a lock: {first_line(str(error))}") from error
    ids = [one["cell_id"] for one in lock["cells"]]
    if doubled := next((one for one in ids if ids.count(one) > 1), None):
        raise UsageError(f"{path}: not a lock: cell_id {doubled} stands in it twice")
    return lock


def _with_reasons(plain: Any) -> Any:
    """A cell that is ok gives no reason."""
    cells = plain.get("cells") if isinstance(plain, dict) else None
    for one in cells if isinstance(cells, list) else ():
        if isinstance(one, dict):
            one.setdefault("reason_code", None)
    return plain


def lock_path(side: Side) -> Path:
    """Where the lock of a sweep is: beside its file, or in the working directory where that file is not in reach.

    Raises:
        UsageError: a matrix of the command line, which has no name to tell its lock from those of others.
    """
    for word in side.plan.arguments:
        if "=" not in word and word.endswith((".yaml", ".yml")):
            return Path(word).with_suffix(SUFFIX)
        name = word.removeprefix("+sweeps=")
        if name != word and (CHECKOUT / "sweeps" / f"{name}.yaml").is_file() and config_dir() == CHECKOUT / "conf":
            return CHECKOUT / "sweeps" / f"{name}{SUFFIX}"
        if name != word:
            return Path(f"{name}{SUFFIX}")
    raise UsageError(
        f"--lock: {side.paths.root} is of the command line and has no sweep's file that a lock lies beside; name one, "
        "e.g. --lock mine.lock, or put the overrides into a sweep's file"
    )


def doubts(side: Side) -> list[str]:
    """What whoever locks a sweep should know: what is bad and expected from now on, and that faults were planted."""
    counts = Counter(cell.status for cell in side.matrix.values())
    planted = sum(any(record.fault for record in cell.records) for cell in side.matrix.values())
    bad = [f"{counts[status]} {status}" for status in BAD_STATUSES if counts[status]]
    said = [f"expected from now on: {', '.join(bad)}; such a cell that is ok fails bench verify"] if bad else []
    return said + ([f"{planted} of the cells had a planted fault (BENCH_FAULT)"] if planted else [])


def write_lock(path: Path, lock: LockFile) -> list[str]:
    """Write the lock; the lines of the diff to what was there before, none where nothing changed.

    Raises:
        UsageError: the place cannot be written, or holds something else than a lock.
    """
    before, after = _text_before(path), lock_text(lock)
    if before:
        read_lock(path)
    try:
        if before != after:
            write_text(path, after)
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror or error}") from error
    return list(_diff(path, before, after))


def _text_before(path: Path) -> str:
    try:
        return read_bytes(path, limit_bytes=LOCK_BYTES).decode(errors="replace")
    except FileNotFoundError:
        return ""
    except DamagedFile as error:
        raise UsageError(f"{path}: {error}") from error


def _diff(path: Path, before: str, after: str) -> Iterable[str]:
    lines = unified_diff(before.splitlines(), after.splitlines(), f"{path} before", f"{path} now", n=0, lineterm="")
    return (line for line in lines if not line.startswith("@@"))
