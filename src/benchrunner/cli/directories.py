"""The directories of sweeps that a command is given."""

from collections.abc import Sequence
from pathlib import Path

from benchrunner.core.errors import UsageError


def sweep_directory(command: str, given: Sequence[str]) -> Path:
    """The one directory that `command` was given.

    Raises:
        UsageError: none or several were given, or it does not exist.
    """
    if len(given) != 1:
        raise UsageError(f"{command} needs the directory of one sweep, e.g. bench {command} outputs/latest")
    return _existing(given[0])


def sweep_directories(command: str, given: Sequence[str]) -> list[Path]:
    """The directories that `command` was given, at least one.

    Raises:
        UsageError: none was given, or one does not exist.
    """
    if not given:
        raise UsageError(f"{command} needs the directory of a sweep, e.g. bench {command} outputs/latest")
    return [_existing(word) for word in given]


def _existing(word: str) -> Path:
    if not Path(word).is_dir():
        raise UsageError(f"{word}: no such directory")
    return Path(word)
