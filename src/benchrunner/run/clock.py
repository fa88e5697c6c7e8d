"""The time as the loop sees it: real, or a test's own."""

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Where the loop's seconds come from."""

    def now(self) -> float:
        """Seconds, monotonic."""

    def sleep(self, seconds: float) -> None:
        """Let time pass."""


class SystemClock:
    """Real time."""

    def now(self) -> float:
        """See Clock."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """See Clock."""
        time.sleep(seconds)


def now_utc() -> str:
    """The stamp of this moment, ISO 8601; only ever shown, never subtracted: the time of day may jump."""
    return datetime.now(UTC).isoformat(timespec="seconds")
