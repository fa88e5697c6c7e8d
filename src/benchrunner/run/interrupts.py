"""Signals to a running sweep: the first asks for an orderly stop, the second ends everything at once."""

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """While entered, `signum` is the signal that asked for a stop, or None."""

    def __init__(self, kill_all: Callable[[], None]) -> None:
        self.signum: int | None = None
        self._kill_all = kill_all
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        """Take the signals over, unless they are ignored (nohup) or this is no main thread."""
        if threading.current_thread() is threading.main_thread():
            for signum in SIGNALS:
                if signal.getsignal(signum) is not signal.SIG_IGN:
                    self._before[signum] = signal.signal(signum, self._handle)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Give the signals back."""
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    @property
    def is_asked(self) -> bool:
        """Whether a stop was asked for."""
        return self.signum is not None

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if self.signum is None:
            self.signum = signum
            return
        self._kill_all()
        os._exit(128 + signum)
