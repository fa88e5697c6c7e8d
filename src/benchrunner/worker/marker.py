"""The attempt's marker in the environment that /proc shows of this process, which a fork alone does not change.

The kernel shows the block of memory in which the environment lay when the program was started. What is written over it
there is seen from outside, in every process that is forked afterwards too.
"""

import ctypes
from pathlib import Path

from benchrunner.core.job_file import MARKER_VARIABLE

ENV_START, ENV_END = 47, 48
"""Among the fields of /proc/PID/stat behind the program's name: proc_pid_stat(5), fields 50 and 51."""


def show_marker(marker: str) -> None:
    """Show `marker` in place of the one that this process was started with.

    Raises:
        OSError: the kernel does not show it, so that nobody would find this process by it.
        ValueError: the process was started without a marker, or with one of another length.
    """
    start, end = environment_block()
    block = ctypes.string_at(start, end - start)
    name = f"{MARKER_VARIABLE}=".encode()
    begin = 0 if block.startswith(name) else block.index(b"\0" + name) + 1
    begin += len(name)
    if block.index(b"\0", begin) - begin != len(marker):
        raise ValueError(f"{MARKER_VARIABLE} has another length than {marker}")
    ctypes.memmove(start + begin, marker.encode(), len(marker))
    if f"{MARKER_VARIABLE}={marker}".encode() not in Path("/proc/self/environ").read_bytes().split(b"\0"):
        raise OSError(f"/proc does not show what is written over {MARKER_VARIABLE}")


def environment_block() -> tuple[int, int]:
    """Where the environment lay when this program was started: addresses of its first byte and behind its last."""
    fields = Path("/proc/self/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    return int(fields[ENV_START]), int(fields[ENV_END])
