"""What is compared of a process: one number, of which more is worse."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from benchrunner.core.errors import UsageError, did_you_mean
from benchrunner.core.record import Metrics, Record


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """How it is read and shown."""

    name: str
    read: Callable[[Metrics], float | None]
    heading: str
    scale: float = 1.0
    """From the number to what is shown."""
    more: str = "slower"
    less: str = "faster"

    def value(self, record: Record) -> float | None:
        """Of a process that is ok; None where it has no such number."""
        found = self.read(record.metrics) if record.status == "ok" else None
        return found if found is not None and found > 0 else None


def _token_s(metrics: Metrics) -> float | None:
    """Seconds a token: of a generation a decoded one, else one of a step, on one device; else a step's."""
    rate = metrics.get("decode_tokens_per_second") or metrics.get("tokens_per_second_per_device")
    return 1 / rate if rate else metrics.get("step_time_median_s")


METRICS: Mapping[str, Metric] = {
    "time": Metric(name="time", read=_token_s, heading="µs/token", scale=1e6),
    "memory": Metric(
        name="memory",
        read=lambda metrics: metrics.get("peak_memory_allocated_bytes"),
        heading="peak MiB",
        scale=2.0**-20,
        more="larger",
        less="smaller",
    ),
    "compile": Metric(name="compile", read=lambda metrics: metrics.get("compile_time_s"), heading="compile s"),
}
"""Name → metric."""


def metric_named(name: str) -> Metric:
    """The metric of that name.

    Raises:
        UsageError: there is none.
    """
    if name not in METRICS:
        raise UsageError(f"--metric: {name!r} is not one of {', '.join(METRICS)}{did_you_mean(name, METRICS)}")
    return METRICS[name]
