"""The processes of an attempt, found by the marker in their environment (Linux only)."""

import os
import signal
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from benchrunner.core.job_file import MARKER_VARIABLE

PARENT_PREFIX = b"BENCH_PARENT_PID="
"""In the environment of an agent, before the id of the `bench` that started it."""

CGROUP_ROOT = Path("/sys/fs/cgroup")


def marked_pids(marker: str, proc: Path = Path("/proc")) -> list[int]:
    """The living processes whose environment carries `marker`. Zombies have none and are not found."""
    needle = f"{MARKER_VARIABLE}={marker}".encode()
    return [int(entry.name) for entry in proc.iterdir() if entry.name.isdigit() and needle in _environ(entry)]


def is_watched(marker: str, proc: Path = Path("/proc")) -> bool:
    """Whether a living `bench` still watches the attempt: an agent of it is the child of the one that started it."""
    return any(_is_child_of_its_starter(proc / str(pid)) for pid in marked_pids(marker, proc))


def _is_child_of_its_starter(entry: Path) -> bool:
    starter = next((part for part in _environ(entry) if part.startswith(PARENT_PREFIX)), None)
    try:
        lines = (entry / "status").read_bytes().splitlines()
    except OSError:
        return False
    parent = next((line.split()[1] for line in lines if line.startswith(b"PPid:")), b"")
    return starter is not None and starter.removeprefix(PARENT_PREFIX) == parent


def _environ(entry: Path) -> list[bytes]:
    try:
        return (entry / "environ").read_bytes().split(b"\0")
    except OSError:  # gone, or another user's
        return []


def send_signal(pids: Iterable[int], signum: int) -> None:
    """Signal those that are still there."""
    for pid in pids:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signum)


def kill_marked(marker: str) -> list[int]:
    """SIGKILL every process of the attempt; returns whom."""
    pids = marked_pids(marker)
    send_signal(pids, signal.SIGKILL)
    return pids


def num_oom_kills() -> int | None:
    """How often the kernel has killed for lack of memory, in this container if it counts, else on this host."""
    counters = (*_cgroup_counters(), (Path("/proc/vmstat"), "oom_kill"))
    return next((count for path, key in counters if (count := _read_counter(path, key)) is not None), None)


def _cgroup_counters() -> list[tuple[Path, str]]:
    """Where this process's cgroup counts its OOM kills: version 2, then version 1; as seen by host and container."""
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    places: list[tuple[Path, str]] = []
    for line in lines:
        _, controllers, group = line.split(":", 2)
        home = CGROUP_ROOT if not controllers else CGROUP_ROOT / "memory"
        name = "memory.events" if not controllers else "memory.oom_control"
        if controllers in ("", "memory"):
            places += [(home / group.lstrip("/") / name, "oom_kill"), (home / name, "oom_kill")]
    return places


def _read_counter(path: Path, key: str) -> int | None:
    try:
        words = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
    except OSError:
        return None
    return next((int(line[1]) for line in words if len(line) == 2 and line[0] == key), None)
