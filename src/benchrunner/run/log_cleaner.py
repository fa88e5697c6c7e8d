"""Logs of jobs that have gone are shortened and scrubbed beside the loop, which has other jobs to watch.

A cleaned attempt is marked, so that what a killed `bench` did not come to is done before anybody is shown a table.
"""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import filelock
from typing_extensions import TypedDict

from benchrunner.core.errors import DamagedFile
from benchrunner.core.files import read_json
from benchrunner.core.job_file import read_job
from benchrunner.core.log_cap import shorten_files
from benchrunner.core.paths import REPEAT, AttemptPaths, CellPaths, SweepPaths
from benchrunner.core.record import RECORD_BYTES
from benchrunner.core.scrub import scrub_files
from benchrunner.launch.processes import marked_pids


class LogCleaner:
    """One thread, in which one job's logs are cleaned after the other's; on exit all of them are."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1)

    def __enter__(self) -> Self:
        """Logs may come."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """The last ones are cleaned."""
        self._pool.shutdown()

    def clean(self, paths: AttemptPaths) -> None:
        """Have the logs of an attempt cleaned; what cannot be written stays as it is."""
        self._pool.submit(clean_logs, paths)


def clean_logs(paths: AttemptPaths) -> None:
    """Head and tail of every log of an attempt, without secrets and this host's name, and nothing half written."""
    files = [*paths.root.glob("rank*"), paths.agent_log]
    _drop_half_written(paths.root)
    shorten_files(files)
    if scrub_files(files):
        with suppress(OSError):
            paths.cleaned.touch()


# --- what a killed bench left --------------------------------------------------------------------------------------


def clean_what_was_left(paths: SweepPaths) -> None:
    """Clean the attempts of a sweep that have ended and were not cleaned.

    Of a sweep that is at work those with a record; where nobody is, also those that no process is at work on.
    """
    is_idle = _is_idle(paths)
    for place in _places(paths) if (paths.root / "cells").is_dir() else ():
        if is_idle:
            _drop_half_written(place.root)
        left = [number for number in place.attempts() if not place.attempt(number).cleaned.exists()]
        judged = _judged_attempt(place.record) if left else 0
        for number in left:
            if number <= judged or (is_idle and not _is_at_work(place.attempt(number))):
                clean_logs(place.attempt(number))


def _places(paths: SweepPaths) -> Iterator[CellPaths]:
    for folder in sorted((paths.root / "cells").iterdir()):
        if folder.is_symlink():  # somebody else's place
            continue
        yield CellPaths(folder)
        yield from (CellPaths(folder / f"{REPEAT}{number}") for number in paths.processes(folder.name)[1:])


def _is_idle(paths: SweepPaths) -> bool:
    """Whether no `bench` runs the sweep here, and no cluster was ever asked to."""
    if paths.claims(1).parent.exists() or paths.allocations.exists():
        return False
    if not paths.lock.exists():
        return True
    try:
        with filelock.FileLock(paths.lock, timeout=0):
            return True
    except (filelock.Timeout, OSError):
        return False


class _Judged(TypedDict):
    attempt: int


def _judged_attempt(record: Path) -> int:
    """The attempt that a record is of; 0 where there is none that can be read."""
    with suppress(FileNotFoundError, DamagedFile):
        return read_json(record, _Judged, limit_bytes=RECORD_BYTES)["attempt"]
    return 0


def _is_at_work(attempt: AttemptPaths) -> bool:
    """Whether this is a copy of a sweep that is being run elsewhere; of a job that nobody can read nobody can tell."""
    with suppress(OSError, DamagedFile):
        return bool(marked_pids(read_job(attempt.cell)["marker"]))
    return False


def _drop_half_written(folder: Path) -> None:
    """Files that were being written when their process was killed (`files.write_bytes`)."""
    for path in folder.glob(".*.tmp"):
        writer = path.name.removesuffix(".tmp").rpartition(".")[2]
        with suppress(OSError):
            if not os.path.exists(f"/proc/{writer}"):
                path.unlink()
