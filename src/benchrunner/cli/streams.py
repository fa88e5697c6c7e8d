"""Stdout and stderr that nothing can take a sweep down by: closed, on a full disk, on a terminal that has hung up."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

STANDARD_DESCRIPTORS = (0, 1, 2)


class LastingStream:
    """A text stream that goes silent at the first thing that cannot be written."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.error: OSError | None = None
        """Why it has gone silent."""

    def write(self, text: str) -> int:
        """Write, or say that it was done."""
        if self.error is None:
            try:
                self._stream.write(text)
            except OSError as error:
                self._silence(error)
        return len(text)

    def flush(self) -> None:
        """Flush, where there is somebody to flush to."""
        if self.error is None:
            try:
                self._stream.flush()
            except OSError as error:
                self._silence(error)

    def _silence(self, error: OSError) -> None:
        """What the interpreter still has to write when it ends goes nowhere, too."""
        self.error = error
        with suppress(OSError, ValueError):
            _open_nowhere(self._stream.fileno())

    def __getattr__(self, name: str) -> Any:
        """Everything else is the stream's own."""
        return getattr(self._stream, name)


@contextmanager
def lasting_streams() -> Iterator[LastingStream]:
    """Stdout and stderr that last, in the place of those of this process; yields stdout."""
    before = sys.stdout, sys.stderr
    for descriptor in STANDARD_DESCRIPTORS:  # else the next file that is opened would be stdout to everybody
        try:
            os.fstat(descriptor)
        except OSError:
            _open_nowhere(descriptor)
    out, err = (LastingStream(_encodable(stream or _nowhere())) for stream in before)
    sys.stdout, sys.stderr = out, err
    try:
        yield out
    finally:
        sys.stdout, sys.stderr = before


def _encodable(stream: TextIO) -> TextIO:
    """A locale that lacks a character of the tables gets something else for it."""
    with suppress(AttributeError, ValueError, OSError):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[attr-defined]
    return stream


def _nowhere() -> TextIO:
    return open(os.devnull, "w", encoding="utf-8")


def _open_nowhere(descriptor: int) -> None:
    opened = os.open(os.devnull, os.O_RDWR)
    if opened != descriptor:
        os.dup2(opened, descriptor)
        os.close(opened)
