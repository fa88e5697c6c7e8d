"""How well a sweep used its devices: how long each was at work between the first launch and the last cell's waiting."""

from dataclasses import dataclass


@dataclass(slots=True)
class _Span:
    started_s: float
    ended_s: float | None
    num_devices: int


class Utilization:
    """Which cell held how many devices from when to when, on the loop's clock."""

    def __init__(self, num_devices: int) -> None:
        self.num_devices = num_devices
        self._spans: dict[object, _Span] = {}
        self._waiting_until_s: float | None = None

    def start(self, key: object, num_devices: int, now_s: float) -> None:
        """A cell begins to work."""
        self._spans[key] = _Span(now_s, None, num_devices)

    def end(self, key: object, now_s: float) -> None:
        """It has ended."""
        self._spans[key].ended_s = now_s

    def waiting(self, now_s: float) -> None:
        """Cells still wait."""
        self._waiting_until_s = now_s

    def busy_share(self) -> float | None:
        """Device seconds at work ÷ device seconds from the first launch until no cell waited; None when none did."""
        if not self._spans or self._waiting_until_s is None:
            return None
        first_s = min(span.started_s for span in self._spans.values())
        whole_s = (self._waiting_until_s - first_s) * self.num_devices
        return self._worked_s(self._waiting_until_s) / whole_s if whole_s > 0 else None

    def concurrency(self) -> float | None:
        """Cells at work at once, on average over the time in which any was."""
        ended = [span.ended_s for span in self._spans.values() if span.ended_s is not None]
        if not ended:
            return None
        whole_s = max(ended) - min(span.started_s for span in self._spans.values())
        spent_s = sum((span.ended_s or span.started_s) - span.started_s for span in self._spans.values())
        return spent_s / whole_s if whole_s > 0 else None

    def _worked_s(self, until_s: float) -> float:
        return sum(
            span.num_devices * (min(until_s if span.ended_s is None else span.ended_s, until_s) - span.started_s)
            for span in self._spans.values()
            if span.started_s < until_s
        )
