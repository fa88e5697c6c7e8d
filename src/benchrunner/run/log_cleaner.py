"""Logs of jobs that have gone are shortened and scrubbed beside the loop, which has other jobs to watch."""

from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

from benchrunner.core.log_cap import shorten_files
from benchrunner.core.paths import AttemptPaths
from benchrunner.core.scrub import scrub_files


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
    """Head and tail of every log of an attempt, without secrets and this host's name."""
    files = [*paths.root.glob("rank*"), paths.agent_log]
    shorten_files(files)
    scrub_files(files)
