"""Step times: events on the device, or the host's clock where there is none."""

import time
from typing import Protocol

import torch


class StepTimer(Protocol):
    """Marks the ends of steps and turns them into seconds."""

    def mark(self) -> None:
        """The step before ends here, on the device's own time line."""

    def step_times_s(self) -> list[float]:
        """Seconds between successive marks; synchronises."""


class CudaTimer:
    """CUDA events: recorded in stream order, no host synchronisation inside the window."""

    def __init__(self) -> None:
        self._events: list[torch.cuda.Event] = []

    def mark(self) -> None:
        """Record one event."""
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        self._events.append(event)

    def step_times_s(self) -> list[float]:
        """Differences of successive events, seconds."""
        torch.cuda.synchronize()
        return [a.elapsed_time(b) / 1e3 for a, b in zip(self._events, self._events[1:], strict=False)]


class HostTimer:
    """The host's monotonic clock, for devices that compute where they are called."""

    def __init__(self) -> None:
        self._marks: list[float] = []

    def mark(self) -> None:
        """Read the clock."""
        self._marks.append(time.perf_counter())

    def step_times_s(self) -> list[float]:
        """Differences of successive readings, seconds."""
        return [b - a for a, b in zip(self._marks, self._marks[1:], strict=False)]


def make_timer(device: torch.device) -> StepTimer:
    """The timer of this kind of device."""
    return CudaTimer() if device.type == "cuda" else HostTimer()


def synchronise(device: torch.device, world_size: int) -> None:
    """All work of all ranks is done when this returns."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    if world_size > 1:
        torch.distributed.barrier()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
