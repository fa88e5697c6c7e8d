"""The measured window: step times from events, memory from the allocator, clocks and energy from the driver."""

import gc
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from benchrunner.core.rank_result import Device, MeanSd, RankResult

ENERGY_MIN_WINDOW_S = 2.0
"""Shorter windows than this say nothing: the driver's energy counter moves in steps of tens of milliseconds."""

_SAMPLE_PERIOD_S = 0.1
_THROTTLE_REASONS = {  # bits of NVML's clock event reasons
    0x0000000000000004: "sw_power_cap",
    0x0000000000000008: "hw_slowdown",
    0x0000000000000020: "sw_thermal_slowdown",
    0x0000000000000040: "hw_thermal_slowdown",
    0x0000000000000080: "hw_power_brake_slowdown",
}


@contextmanager
def frozen_gc() -> Iterator[None]:
    """No garbage collection inside: a pause of the host would show as a slow step."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


class DeviceMonitor:
    """Samples the driver's view of one GPU beside the window: utilisation, SM clock, clock events, energy.

    Every value is None where the driver does not tell. On CPU nothing is sampled.
    """

    def __init__(self, device: torch.device) -> None:
        self._handle = _nvml_handle(device)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._utilization: list[float] = []
        self._clocks: list[float] = []
        self._reasons = 0
        self._energy_j: float | None = None
        self._started_at = 0.0

    def start(self) -> None:
        """Begin sampling; call right after the synchronisation that opens the window."""
        if self._handle is None:
            return
        self._energy_j = self._read_energy_j()
        self._started_at = time.perf_counter()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def stop(self) -> RankResult:
        """End sampling; call right after the synchronisation that closes the window."""
        energy_j = None
        if self._thread is not None:
            after_j, window_s = self._read_energy_j(), time.perf_counter() - self._started_at
            if after_j is not None and self._energy_j is not None and window_s >= ENERGY_MIN_WINDOW_S:
                energy_j = after_j - self._energy_j
            self._stop.set()
            self._thread.join()
        return {
            "energy_j": energy_j,
            "utilization": _mean_sd(self._utilization),
            "sm_clock_mhz": _mean_sd(self._clocks),
            "clock_event_reasons": sorted(name for bit, name in _THROTTLE_REASONS.items() if self._reasons & bit),
            "foreign_processes": self._count_foreign_processes(),
        }

    def _sample(self) -> None:
        import pynvml

        while not self._stop.wait(_SAMPLE_PERIOD_S):
            try:
                self._utilization.append(float(pynvml.nvmlDeviceGetUtilizationRates(self._handle).gpu))
                self._clocks.append(float(pynvml.nvmlDeviceGetClockInfo(self._handle, pynvml.NVML_CLOCK_SM)))
                self._reasons |= pynvml.nvmlDeviceGetCurrentClocksEventReasons(self._handle)
            except pynvml.NVMLError:
                return

    def _read_energy_j(self) -> float | None:
        import pynvml

        try:
            return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)) / 1e3
        except pynvml.NVMLError:
            return None

    def _count_foreign_processes(self) -> int | None:
        if self._handle is None:
            return None
        import pynvml

        try:
            return max(0, len(pynvml.nvmlDeviceGetComputeRunningProcesses(self._handle)) - 1)
        except pynvml.NVMLError:
            return None


def _nvml_handle(device: torch.device) -> Any:
    """The driver's handle of a torch device, found by UUID since both number devices differently; None on CPU."""
    if device.type != "cuda":
        return None
    import pynvml

    try:
        pynvml.nvmlInit()
        return pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
    except pynvml.NVMLError:
        return None


def _mean_sd(samples: list[float]) -> MeanSd | None:
    if not samples:
        return None
    return {"mean": statistics.fmean(samples), "sd": statistics.stdev(samples) if len(samples) > 1 else 0.0}


def describe_device(device: torch.device) -> Device:
    """What the rank ran on."""
    if device.type != "cuda":
        return {
            "type": device.type,
            "name": "CPU",
            "index": None,
            "uuid": None,
            "compute_capability": None,
            "memory_bytes": None,
        }
    properties = torch.cuda.get_device_properties(device)
    return {
        "type": "cuda",
        "name": properties.name,
        "index": device.index,
        "uuid": str(properties.uuid),
        "compute_capability": f"{properties.major}.{properties.minor}",
        "memory_bytes": properties.total_memory,
    }
