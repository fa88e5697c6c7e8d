"""Peak memory of the window and of the whole run, as the allocator saw it."""

import resource

import torch

from benchrunner.core.rank_result import Memory, Peaks


class MemoryMeter:
    """Peaks of the allocator over the window and over the whole run, in bytes.

    Made before the first step. With `captures` the window's peak starts there: the allocator does not see inside
    replayed CUDA graphs, but it sees their capture.
    """

    def __init__(self, device: torch.device, *, captures: bool = False) -> None:
        self._device = device
        self._captures = captures
        self._before: Peaks = {"allocated_bytes": 0, "reserved_bytes": 0}
        self._forget()

    def start_window(self) -> None:
        """Forget the peaks so far, for the window's sake; they still count for the run."""
        if not self._captures:
            self._forget()

    def _forget(self) -> None:
        self._before = self._with_before(_peaks(self._device))
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)

    def _with_before(self, peaks: Peaks) -> Peaks:
        return {
            "allocated_bytes": max(peaks["allocated_bytes"], self._before["allocated_bytes"]),
            "reserved_bytes": max(peaks["reserved_bytes"], self._before["reserved_bytes"]),
        }

    def read(self) -> Memory:
        """The rank's memory block. On CPU both peaks are the process's resident set, scope `process`."""
        window = _peaks(self._device)
        run = self._with_before(window)
        if self._device.type != "cuda":
            return {
                "window": window,
                "run": run,
                "num_alloc_retries": None,
                "num_ooms": None,
                "nvml_used_bytes": None,
                "scope": "process",
            }
        stats = torch.cuda.memory_stats(self._device)
        return {
            "window": window,
            "run": run,
            "num_alloc_retries": stats.get("num_alloc_retries", 0),
            "num_ooms": stats.get("num_ooms", 0),
            "nvml_used_bytes": _driver_used_bytes(self._device),
            "scope": "capture" if self._captures else "window",
        }


def _peaks(device: torch.device) -> Peaks:
    if device.type == "cuda":
        allocated, reserved = torch.cuda.max_memory_allocated(device), torch.cuda.max_memory_reserved(device)
        return {"allocated_bytes": allocated, "reserved_bytes": reserved}
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"allocated_bytes": resident, "reserved_bytes": resident}


def _driver_used_bytes(device: torch.device) -> int | None:
    free, total = torch.cuda.mem_get_info(device)
    return total - free
