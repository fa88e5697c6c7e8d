"""What a sweep was measured with: versions, commit, driver, devices, clocks, the variables that matter.

Printed under every table. Never holds a host name or a secret; None where nobody can say.
"""

import importlib.metadata
import os
import platform
import re
import socket
import subprocess
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchrunner import __version__
from benchrunner.core.environment import Cpu, DriverState, Environment, Git, GpuState
from benchrunner.core.node_list import hosts_of
from benchrunner.core.paths import PACKAGE
from benchrunner.core.secrets import redact, without_secrets
from benchrunner.machine.hardware import cpu_name, list_gpus, package_version, ram_bytes

DISTRIBUTIONS = (
    "torch",
    "triton",
    "lightning",
    "transformer-engine",
    "torchao",
    "bitsandbytes",
    "lightning-thunder",
    "hydra-core",
    "omegaconf",
    "numpy",
    "nvidia-ml-py",
)
"""Packages whose version can change a number or a verdict."""

CUDA_DISTRIBUTIONS = re.compile(r"nvidia-(cuda-runtime|cudnn|nccl|cublas)(-cu\d+)?")
"""The CUDA libraries that come as wheels, under names that carry the CUDA version or not."""

RECORDED = re.compile(
    r"CUDA_(VISIBLE_DEVICES|DEVICE_ORDER|DEVICE_MAX_CONNECTIONS|LAUNCH_BLOCKING|MODULE_LOADING|MODULE_DATA_LOADING"
    r"|FORCE_PTX_JIT|DISABLE_PTX_JIT|CACHE_\w+|AUTO_BOOST|MPS_\w+|SCALE_LAUNCH_QUEUES|HOME|PATH|VERSION)"
    r"|(NCCL|TORCH|PYTORCH|OMP|TRITON|NVTE)_\w+"
)
"""The environment variables that are recorded; those whose namespace others use too, each by its name."""


def collect() -> Environment:
    """The environment now, as plain data."""
    return {
        "benchrunner": __version__,
        "collected_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "kernel": platform.release(),
        "cpu": {"name": cpu_name(), "num_cores": os.cpu_count(), "memory_bytes": ram_bytes()},
        "versions": versions(),
        "git": git_state(PACKAGE),
        **nvml_state(),
        "variables": variables(os.environ),
    }


def versions() -> dict[str, str | None]:
    """Distribution → installed version, None when absent; the CUDA wheels only when present."""
    found: dict[str, str | None] = {name: package_version(name) for name in DISTRIBUTIONS}
    for distribution in importlib.metadata.distributions():
        name = (distribution.metadata["Name"] or "").lower()
        if CUDA_DISTRIBUTIONS.fullmatch(name):
            found[name] = distribution.version
    return found


def variables(environ: Mapping[str, str]) -> dict[str, str]:
    """The allow-listed variables, without secrets, host names replaced."""
    clean = without_secrets(environ)
    listed = {name: text for name, text in sorted(clean.items()) if RECORDED.fullmatch(name)}
    return {name: scrub_host(redact(text)) for name, text in listed.items()}


def scrub_host(text: str) -> str:
    """`text` without the names of this machine and of the others of its allocation."""
    names = {socket.gethostname(), platform.node(), *hosts_of(os.environ)}
    for name in sorted((name for name in names if len(name) > 2 and name != "localhost"), key=len, reverse=True):
        text = text.replace(name, "<host>")
    return text


def git_state(package: Path) -> Git:
    """Commit and dirtiness of the checkout that this package runs from; None when it is installed.

    An installed package may lie inside somebody else's repository: only a checkout whose root holds `src/<package>`
    is ours.
    """
    root = _git(package, "rev-parse", "--show-toplevel")
    if root is None or Path(root).resolve() != package.parent.parent:
        return {"commit": None, "is_dirty": None}
    status = _git(package, "status", "--porcelain", "--untracked-files=no")
    return {"commit": _git(package, "rev-parse", "HEAD"), "is_dirty": None if status is None else bool(status)}


def _git(directory: Path, *words: str) -> str | None:
    command = ["git", "-C", str(directory), "--no-optional-locks", *words]
    try:
        done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def nvml_state() -> DriverState:
    """Driver, CUDA version of the driver, visible GPUs and how they are connected; None without a driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return {"driver": None, "driver_cuda": None, "gpus": [], "topology": []}
    handles = [pynvml.nvmlDeviceGetHandleByUUID(gpu.uuid) for gpu in list_gpus()]
    cuda = _ask(pynvml.nvmlSystemGetCudaDriverVersion)
    return {
        "driver": _ask(pynvml.nvmlSystemGetDriverVersion),
        "driver_cuda": None if cuda is None else f"{cuda // 1000}.{cuda % 1000 // 10}",
        "gpus": [_gpu_state(pynvml, handle) for handle in handles],
        "topology": [[_link(pynvml, one, other) for other in handles] for one in handles],
    }


def _gpu_state(nvml: Any, handle: Any) -> GpuState:
    sm, memory = nvml.NVML_CLOCK_SM, nvml.NVML_CLOCK_MEM
    return {
        "name": _ask(nvml.nvmlDeviceGetName, handle),
        "uuid": _ask(nvml.nvmlDeviceGetUUID, handle),
        "memory_bytes": _ask(lambda: int(nvml.nvmlDeviceGetMemoryInfo(handle).total)),
        "power_limit_w": _ask(lambda: nvml.nvmlDeviceGetEnforcedPowerLimit(handle) / 1000),
        "max_sm_clock_mhz": _ask(nvml.nvmlDeviceGetMaxClockInfo, handle, sm),
        "sm_clock_mhz": _ask(nvml.nvmlDeviceGetClockInfo, handle, sm),
        "memory_clock_mhz": _ask(nvml.nvmlDeviceGetClockInfo, handle, memory),
        "persistence_mode": _ask(lambda: bool(nvml.nvmlDeviceGetPersistenceMode(handle))),
        "is_mig": _ask(lambda: bool(nvml.nvmlDeviceGetMigMode(handle)[0])),
        "num_nvlinks": _num_nvlinks(nvml, handle),
    }


def _num_nvlinks(nvml: Any, handle: Any) -> int | None:
    states = [_ask(nvml.nvmlDeviceGetNvLinkState, handle, link) for link in range(nvml.NVML_NVLINK_MAX_LINKS)]
    return None if all(state is None for state in states) else sum(state == 1 for state in states)


def _link(nvml: Any, one: Any, other: Any) -> str | None:
    """How two GPUs reach each other: self, nvlink, or the level of the PCIe tree that they share."""
    if one is other:
        return "self"
    if _ask(nvml.nvmlDeviceGetP2PStatus, one, other, nvml.NVML_P2P_CAPS_INDEX_NVLINK) == nvml.NVML_P2P_STATUS_OK:
        return "nvlink"
    levels = {0: "internal", 10: "single switch", 20: "multiple switches", 30: "host bridge", 40: "node", 50: "system"}
    level = _ask(nvml.nvmlDeviceGetTopologyCommonAncestor, one, other)
    return None if level is None else levels.get(level, str(level))


def _ask(question: Callable[..., Any], *arguments: Any) -> Any:
    """The driver's answer, or None where this device or driver does not have one."""
    import pynvml

    with suppress(pynvml.NVMLError, AttributeError):
        answer = question(*arguments)
        return answer.decode() if isinstance(answer, bytes) else answer
    return None


def summary_lines(environment: Environment) -> list[tuple[str, str]]:
    """The lines that stand under a table: (label, text), unknown values said so."""
    known = environment.get("versions", {})
    installed = ", ".join(f"{name} {version}" for name, version in known.items() if version)
    git, cpu = environment.get("git", Git()), environment.get("cpu", Cpu())
    dirty = {True: ", with uncommitted changes", False: "", None: ""}[git.get("is_dirty")]
    chosen = ", ".join(f"{name}={value}" for name, value in environment.get("variables", {}).items())
    return [
        ("Date", _said(environment.get("collected_at"))),
        ("benchrunner", f"{_said(environment.get('benchrunner'))}, commit {_said(git.get('commit'))}{dirty}"),
        ("Versions", f"Python {_said(environment.get('python'))}, {installed or 'packages unknown'}"),
        ("GPU", _describe_gpus(environment.get("gpus", []))),
        ("Driver", _describe_driver(environment)),
        ("CPU", f"{_said(cpu.get('name'))}, {_said(cpu.get('num_cores'))} cores"),
        ("System", f"{_said(environment.get('system'))}, kernel {_said(environment.get('kernel'))}"),
        ("Variables", chosen or "none set"),
    ]


def _said(value: str | int | None) -> str:
    return str(value) if value else "unknown"


def _describe_gpus(gpus: Sequence[GpuState]) -> str:
    counted = Counter(f"{_said(gpu.get('name'))}, {_watts(gpu.get('power_limit_w'))}" for gpu in gpus)
    return "; ".join(f"{count} × {name}" for name, count in counted.items()) or "none"


def _watts(power_limit_w: float | None) -> str:
    return "power limit unknown" if power_limit_w is None else f"{power_limit_w:.0f} W"


def _describe_driver(environment: Environment) -> str:
    driver: str | None = environment.get("driver")
    return f"{driver} (CUDA {_said(environment.get('driver_cuda'))})" if driver else "none"
