"""Peak memory of the window, of all steps and of the whole run, as the allocator saw it."""

import resource

import torch

from benchrunner.core.rank_result import Memory, Peaks

NOTHING: Peaks = {"allocated_bytes": 0, "reserved_bytes": 0}


class MemoryMeter:
    """Peaks of the allocator over the window, over all steps and over the whole run, in bytes.

    Made before the first step: what the build held for a moment (a tensor in fp32 before it is cast) counts for the run
    alone. With `captures` the window's peak starts there: the allocator sees CUDA graphs captured, but not replayed.
    With `unseen` all are captured before the optimizer has its state: what they need beside it is never seen.
    """

    def __init__(self, device: torch.device, *, captures: bool = False, unseen: bool = False) -> None:
        self._device = device
        self._captures, self._unseen = captures, unseen
        self._build, self._warm_up = _forget(device), NOTHING

    def start_window(self) -> None:
        """Forget the peaks so far, for the window's sake; they still count for the run."""
        if not self._captures:
            self._warm_up = _larger(self._warm_up, _forget(self._device))

    def read(self) -> Memory:
        """The rank's memory block. On CPU both peaks are the process's resident set, scope `process`."""
        window = _peaks(self._device)
        steps = _larger(self._warm_up, window)
        run = _larger(self._build, steps)
        if self._device.type != "cuda":
            return {
                "window": window,
                "run": run,
                "steps": steps,
                "num_alloc_retries": None,
                "num_ooms": None,
                "nvml_used_bytes": None,
                "scope": "process",
            }
        stats = torch.cuda.memory_stats(self._device)
        return {
            "window": window,
            "run": run,
            "steps": steps,
            "num_alloc_retries": stats.get("num_alloc_retries", 0),
            "num_ooms": stats.get("num_ooms", 0),
            "nvml_used_bytes": _driver_used_bytes(self._device),
            "scope": self._scope(),
        }

    def _scope(self) -> str:
        if self._captures:
            return "replay" if self._unseen else "capture"
        return "window"


def _larger(one: Peaks, other: Peaks) -> Peaks:
    return {
        "allocated_bytes": max(one["allocated_bytes"], other["allocated_bytes"]),
        "reserved_bytes": max(one["reserved_bytes"], other["reserved_bytes"]),
    }


def _forget(device: torch.device) -> Peaks:
    """The peaks so far; the allocator's begin anew."""
    peaks = _peaks(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    return peaks


def _peaks(device: torch.device) -> Peaks:
    if device.type == "cuda":
        allocated, reserved = torch.cuda.max_memory_allocated(device), torch.cuda.max_memory_reserved(device)
        return {"allocated_bytes": allocated, "reserved_bytes": reserved}
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"allocated_bytes": resident, "reserved_bytes": resident}


def _driver_used_bytes(device: torch.device) -> int | None:
    free, total = torch.cuda.mem_get_info(device)
    return total - free
