"""The exceptions a caller may meet.

BenchError                 anything that `bench` reports in one line, without a traceback
├── UsageError             the arguments on the command line are wrong             exit 1
│   └── ConfigError        a configuration key or value is wrong (`key`)       exit 1
├── SweepDirError          a directory that is no sweep, foreign or damaged    exit 1
└── Unsupported            raised in a worker: this combination cannot work, and why (`code`)

DamagedFile                one file of a sweep; who reads it says what becomes of the sweep without it
└── OtherVersion           it was written by another version of this program
"""

import difflib
from collections.abc import Iterable

from benchrunner.core.text import first_line, single_line


class BenchError(Exception):
    """Base of every error that is printed as one message and never as a traceback."""


class UsageError(BenchError, ValueError):
    """The command line itself is wrong; nothing was run and nothing was written."""


class ConfigError(UsageError):
    """A configuration value is wrong; `key` is the dotted path that the message names."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(f"{key}: {message}" if key else message)
        self.key = key


class SweepDirError(BenchError, ValueError):
    """A directory given to `report`, `resume`, `compare`, … is not a sweep that this program can read."""


class Unsupported(BenchError):
    """Raised inside a worker when a library or a shape makes the combination impossible.

    `code` is the reason code of the record, e.g. `runtime.fp8_shape` or `missing.bitsandbytes`.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class DamagedFile(ValueError):
    """A file that cannot be used; the text is one short line that says why and is fit to be shown."""

    def __init__(self, why: str) -> None:
        super().__init__(first_line(single_line(why[:1000]), 200))


class OtherVersion(DamagedFile):
    """A file whose `schema_version` is not this program's."""


def did_you_mean(word: str, allowed: Iterable[str]) -> str:
    """A trailing ` (did you mean ddp?)` when `word` is close to one of `allowed`, else an empty string."""
    close = difflib.get_close_matches(word, list(allowed), n=1, cutoff=0.5)
    return f" (did you mean {close[0]}?)" if close else ""
