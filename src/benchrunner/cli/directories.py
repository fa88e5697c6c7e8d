"""The directories of sweeps that a command is given."""

import os
from collections.abc import Sequence
from pathlib import Path

from benchrunner.core.errors import UsageError
from benchrunner.core.paths import PLAN


def sweep_directory(command: str, given: Sequence[str]) -> Path:
    """The one directory that `command` was given.

    Raises:
        UsageError: none or several were given, or it does not exist.
    """
    if len(given) != 1:
        raise UsageError(f"{command} needs the directory of one sweep, e.g. bench {command} outputs/latest")
    return _existing(given[0])


def directory_and_overrides(command: str, given: Sequence[str]) -> tuple[Path, list[str]]:
    """The one directory that `command` was given, and the settings of the run that are to be others.

    Raises:
        UsageError: no or several directories were given, or it does not exist.
    """
    overrides = [one for one in given if "=" in one and not os.path.isdir(one)]
    return sweep_directory(command, [one for one in given if one not in overrides]), overrides


def sweep_directories(command: str, given: Sequence[str]) -> list[Path]:
    """The directories that `command` was given, at least one.

    Raises:
        UsageError: none was given, or one does not exist.
    """
    if not given:
        raise UsageError(f"{command} needs the directory of a sweep, e.g. bench {command} outputs/latest")
    return [_existing(given_path) for given_path in given]


def _existing(given_path: str) -> Path:
    if not os.path.isdir(given_path):
        path = Path(given_path)
        hint = f" (did you mean {path.parent}?)" if path.name == PLAN and os.path.isfile(path) else ""
        raise UsageError(f"{given_path}: no such directory{hint}")
    return _followed(Path(given_path))


def _followed(path: Path) -> Path:
    """Where the link leads now: `outputs/latest` is another sweep as soon as one is started."""
    return path.parent / path.readlink() if path.is_symlink() else path
