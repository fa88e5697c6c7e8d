"""`memory_limit_gib`: this rank behaves as on a card with so much memory in all.

The allocator may have the limit less what the process holds outside of it: CUDA's context, libraries and NCCL, which a
small card would have to hold as well. So it is set once both are up, before anything is built. On a CPU the kernel
refuses the process any data beyond what it had then and the limit.
"""

import resource
from pathlib import Path

import torch
import torch.distributed as dist

from benchrunner.core.rank_result import MemoryCap
from benchrunner.core.units import GIB
from benchrunner.worker.context import Context

CAP: MemoryCap | None = None
"""This process's, once it is set: what a rank says when it dies."""


def apply_limit(context: Context) -> None:
    """Cap the allocator of this rank's device as the cell says; without a limit nothing changes.

    Raises:
        torch.OutOfMemoryError: context and libraries alone need more than the limit.
    """
    global CAP
    limit_gib = context.cell.config.memory_limit_gib
    if limit_gib is None:
        return
    if context.device.type != "cuda":
        _limit_data(int(limit_gib * GIB))
        return
    _start_libraries(context)
    CAP = make_cap(int(limit_gib * GIB), *_used_and_total_bytes(context.device))
    if CAP["cap_bytes"] <= 0:
        outside = CAP["outside_bytes"] / GIB
        raise torch.OutOfMemoryError(
            f"CUDA's context and libraries hold {outside:.2f} GiB, memory_limit_gib is {limit_gib}"
        )
    total = torch.cuda.mem_get_info(context.device)[1]
    torch.cuda.set_per_process_memory_fraction(min(1.0, CAP["cap_bytes"] / total), context.device)


def _limit_data(limit_bytes: int) -> None:
    """Libraries and threads hold what they hold; what is built and computed with them gets the limit."""
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = _data_bytes() + limit_bytes
    resource.setrlimit(resource.RLIMIT_DATA, (wanted if most == resource.RLIM_INFINITY else min(wanted, most), most))


def _data_bytes() -> int:
    """Private memory that the process may write: what RLIMIT_DATA counts."""
    lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmData:"))


def make_cap(limit_bytes: int, outside_bytes: int, total_bytes: int) -> MemoryCap:
    """What the allocator may have of a card of `limit_bytes`, never more than the device has."""
    cap_bytes = min(limit_bytes, total_bytes) - outside_bytes
    return {"limit_bytes": limit_bytes, "cap_bytes": cap_bytes, "outside_bytes": outside_bytes}


def _start_libraries(context: Context) -> None:
    """One product and one collective: what they load and connect stays for the whole run."""
    ones = torch.ones(256, 256, device=context.device, dtype=torch.bfloat16)
    (ones @ ones).sum().item()
    if dist.is_initialized():
        dist.all_reduce(ones)
    torch.cuda.synchronize(context.device)
    del ones


def _used_and_total_bytes(device: torch.device) -> tuple[int, int]:
    """Bytes of the device outside of the allocator, and all of them.

    The driver tells what is used on the device, not by whom (inside a container it knows no process of ours): the
    device is ours alone, which the run's locks and its look before launch see to.
    """
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info(device)
    return total - free - torch.cuda.memory_reserved(device), total
