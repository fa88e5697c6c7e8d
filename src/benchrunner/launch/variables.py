"""The environment that a job's processes get: devices, caches, threads, and no secrets."""

import os
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from benchrunner.core.cell import Cell
from benchrunner.core.job_file import MARKER_VARIABLE
from benchrunner.core.paths import PACKAGE, AttemptPaths
from benchrunner.core.secrets import without_secrets
from benchrunner.launch.job import Job

MAX_THREADS = 16
"""OMP threads a rank beside a GPU."""


def job_environment(job: Job, environ: Mapping[str, str]) -> dict[str, str]:
    """What the job's processes get: ours without secrets, the job's devices, caches and threads, and the marker.

    `launcher.pass_env` names secrets that pass.
    """
    env = without_secrets(environ, job.cell.config.launcher.pass_env)
    env |= device_variables(job, environ.get("CUDA_VISIBLE_DEVICES"))
    env |= cache_variables(job, environ)
    env[MARKER_VARIABLE] = job.marker
    env["PYTHONUNBUFFERED"] = "1"
    env.setdefault("OMP_NUM_THREADS", str(num_threads(job, len(os.sched_getaffinity(0)))))
    if job.hardware["device_type"] != "cuda":
        env.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads slow a shared CPU down a hundredfold
    if _working_directory() != PACKAGE.parent:
        env["PYTHONSAFEPATH"] = "1"  # a torch.py where the user stands must not shadow torch
    if job.cell.sizes.nodes == 1:
        env.setdefault("GLOO_SOCKET_IFNAME", "lo")  # else gloo resolves the host's name, which may have none
    return env


def _working_directory() -> Path | None:
    """Where the user stands; None once that is gone."""
    with suppress(OSError):
        return Path.cwd()
    return None


def device_variables(job: Job, visible: str | None) -> dict[str, str]:
    """CUDA_VISIBLE_DEVICES of the job, mapped through ours (indices or UUIDs); none for a CPU job."""
    if job.hardware["device_type"] != "cuda":
        return {"CUDA_VISIBLE_DEVICES": ""}
    names = [name.strip() for name in visible.split(",")] if visible else None
    chosen = [names[index] if names else str(index) for index in job.devices]
    return {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": ",".join(chosen)}


def cache_variables(job: Job, environ: Mapping[str, str]) -> dict[str, str]:
    """Inductor's and Triton's caches: the attempt's own for a cell that starts cold, else the user's shared ones.

    The shared ones are apart by attention back end: AOTAutograd's cache does not know which one a graph was traced
    under and would hand a cuDNN graph to a cell labelled flash.
    """
    shared = shared_cache(environ) / f"attention-{job.cell.config.attention}"
    home = job.paths.cache.resolve() if starts_cold(job.cell) else shared
    return {"TORCHINDUCTOR_CACHE_DIR": str(home / "inductor"), "TRITON_CACHE_DIR": str(home / "triton")}


def starts_cold(cell: Cell) -> bool:
    """Whether the cell compiles into an empty cache, so that its compile time is comparable."""
    return bool(cell.axes["compile"] != "eager" and cell.config.compile.cache == "cold")


def shared_cache(environ: Mapping[str, str]) -> Path:
    """One compile cache a user: in their home, or in the temporary directory where they have none to write into."""
    for home in filter(None, (environ.get("XDG_CACHE_HOME"), _home_cache(environ))):
        if os.path.isabs(home) and _can_be_made(Path(home, "benchrunner")):
            return Path(home, "benchrunner")
    return Path(tempfile.gettempdir(), f"benchrunner-{os.getuid()}", "cache")


def _home_cache(environ: Mapping[str, str]) -> str:
    """Of a user without HOME and without an entry among the system's users there is no home at all."""
    with suppress(RuntimeError, KeyError):
        return str((Path(environ["HOME"]) if environ.get("HOME") else Path.home()) / ".cache")
    return ""


def _can_be_made(path: Path) -> bool:
    """Whether the folder is there to be written, or can be made."""
    there = next((place for place in (path, *path.parents) if place.exists()), path)
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)


def drop_cold_cache(paths: AttemptPaths) -> None:
    """Remove the caches of a cell that started cold."""
    shutil.rmtree(paths.cache, ignore_errors=True)


def num_threads(job: Job, num_cores: int) -> int:
    """OMP threads of a rank: an equal share of the cores."""
    if job.hardware["device_type"] != "cuda":
        return max(1, num_cores // job.cell.sizes.devices)
    return max(1, min(MAX_THREADS, num_cores // max(1, int(job.hardware.get("num_devices") or 1))))
