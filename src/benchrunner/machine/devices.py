"""Are the devices ours, and are they empty: locks between sweeps of one user, and what the driver says of a device."""

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import filelock

from benchrunner.machine.hardware import Hardware, list_gpus

LOCKS_VARIABLE = "BENCH_LOCKS"

SLACK_BYTES = 1 << 29
"""What the driver may hold more than before without anybody being there."""


Read = Callable[[str], tuple[int, list[int]] | None]


class Probe(Protocol):
    """Looks at devices from outside."""

    def occupants(self, device: int) -> str | None:
        """What a device holds that it did not hold before the first cell, in words; None when it is empty."""


class NoProbe:
    """Where no driver tells: every device is taken to be empty."""

    def occupants(self, device: int) -> str | None:
        """See Probe."""
        return None


class NvmlProbe:
    """By NVML's used bytes, against the least that was ever seen: what others hold all the time is not ours to judge.

    `read(uuid)` gives the used bytes and the processes of a device, or None where the driver does not tell.
    """

    def __init__(self, uuids: Sequence[str], read: Read | None = None) -> None:
        self._uuids = list(uuids)
        self._read = read or read_used
        self._least: dict[int, int] = {}
        for device in range(len(self._uuids)):
            self.occupants(device)

    def occupants(self, device: int) -> str | None:
        """See Probe."""
        found = self._read(self._uuids[device]) if device < len(self._uuids) else None
        if found is None:
            return None
        used, pids = found
        least = self._least[device] = min(used, self._least.get(device, used))
        if used <= least + SLACK_BYTES:
            return None
        who = f", processes {', '.join(map(str, pids))}" if pids else ""
        return f"{used / 2**30:.1f} GiB in use, {least / 2**30:.1f} when empty{who}"


def read_used(uuid: str) -> tuple[int, list[int]] | None:
    """Used bytes and compute processes of a device by NVML."""
    import pynvml

    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
        used = int(pynvml.nvmlDeviceGetMemoryInfo(handle).used)
        return used, [int(process.pid) for process in pynvml.nvmlDeviceGetComputeRunningProcesses(handle)]
    except pynvml.NVMLError:
        return None


# --- between sweeps ------------------------------------------------------------------------------------------------


class Locks:
    """File locks of each device, and a turnstile: the sweep that is inside takes devices, or waits there for them.

    `keys`: of each device the names of what it is, one or several: the only device of a CPU is all cores that this
    process may use, so that sweeps that were given different cores do not wait for each other.

    Devices are held by running cells only and taken by the one sweep inside, so nobody waits for one who waits. The
    kernel drops the locks of a sweep that dies.
    """

    def __init__(self, directory: Path | None, keys: Sequence[str | Sequence[str]]) -> None:
        groups = [[names] if isinstance(names, str) else names for names in keys] if directory else []
        self._locks = [[filelock.FileLock(f"{directory}/{name}.lock") for name in names] for names in groups]
        self._turnstile = filelock.FileLock(directory / "turnstile.lock") if directory else None

    def enter(self) -> bool:
        """Whether this sweep may take devices now; then it stays inside until `leave`."""
        return self._turnstile is None or self._turnstile.is_locked or _try(self._turnstile)

    def leave(self) -> None:
        """Let another sweep take devices."""
        if self._turnstile is not None:
            self._turnstile.release()

    def take(self, device: int) -> bool:
        """Lock a device, unless another sweep has it."""
        locks = self._locks[device] if device < len(self._locks) else []
        if all(map(_try, locks)):
            return True
        self.give_back(device)
        return False

    def give_back(self, device: int) -> None:
        """Unlock a device."""
        for lock in self._locks[device] if device < len(self._locks) else []:
            lock.release()

    def close(self) -> None:
        """Unlock everything."""
        for device in range(len(self._locks)):
            self.give_back(device)
        self.leave()


def _try(lock: filelock.BaseFileLock) -> bool:
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        return False
    except OSError:  # a place that cannot be locked must not keep anybody from working
        return True
    return True


def runtime_dir(environ: Mapping[str, str]) -> Path | None:
    """The user's own directory for locks; None where none can be had, or where somebody else's stands in its place.

    One whatever the environment is: a nightly without XDG_RUNTIME_DIR must meet the sweep of a session that has it.
    `BENCH_LOCKS` names another one, for sweeps that are to run beside each other.
    """
    places = [Path("/tmp"), Path(tempfile.gettempdir())]
    chosen = [Path(environ[LOCKS_VARIABLE])] if environ.get(LOCKS_VARIABLE) else []
    for path in chosen or [place / f"benchrunner-{os.getuid()}" for place in places]:
        with suppress(OSError):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            if path.stat().st_uid == os.getuid() and os.access(path, os.W_OK):
                return path
    return None


def local_devices(hardware: Hardware, *, is_local: bool, environ: Mapping[str, str]) -> tuple[Probe, Locks]:
    """Probe and locks for the devices that this machine hands out; without effect where there are none."""
    if is_local and hardware.device_type == "cpu":
        return NoProbe(), Locks(runtime_dir(environ), [[f"core{core}" for core in sorted(os.sched_getaffinity(0))]])
    gpus: Sequence[Any] = list_gpus(environ) if is_local and hardware.device_type == "cuda" else []
    if not gpus:
        return NoProbe(), Locks(None, [])
    uuids = [gpu.uuid for gpu in gpus]
    return NvmlProbe(uuids), Locks(runtime_dir(environ), uuids)
