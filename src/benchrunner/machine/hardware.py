"""What this machine is, or the machine that a plan is made for: devices, memory, peaks, libraries.

Read from NVML, package metadata and `conf/hardware/*.yaml`, never from torch: planning must not pay for its import.
"""

import importlib.metadata
import os
import re
import shutil
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, cast

import psutil
import yaml

from benchrunner.core.job_file import Machine
from benchrunner.core.paths import config_dir
from benchrunner.core.schema import HardwareConfig, typed_section
from benchrunner.machine.network import has_loopback

PACKAGES = {
    "bitsandbytes": "bitsandbytes",
    "lightning": "lightning",
    "thunder": "lightning-thunder",
    "torchao": "torchao",
    "transformer_engine": "transformer-engine",
    "triton": "triton",
}
"""Import name → distribution whose version decides whether an axis value can run."""

CPU_RANKS = 2
"""Ranks of a multi-device strategy where there is no accelerator."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One device as the driver reports it."""

    index: int
    uuid: str
    name: str
    memory_bytes: int
    compute_capability: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """A machine: one kind of device, how many, and the libraries that drive it."""

    name: str
    """The option file in conf/hardware, or `unknown` for a device without one."""
    device_type: str
    """cuda | cpu"""
    device_name: str
    num_devices: int
    """Devices a node; 1 for a CPU."""
    memory_bytes: int | None
    """Of one device as the driver reports it; CPU: RAM, or the container's share of it."""
    compute_capability: str | None = None
    memory_bandwidth_bytes_per_second: float | None = None
    interconnect_bytes_per_second: float | None = None
    """One direction, a device, to its peers in the node."""
    peak_flops: dict[str, float] = field(default_factory=dict)
    """Dense FLOP/s by dtype; empty for an unknown device, so that MFU is None and never a guess."""
    source: str = ""
    calibration: dict[str, float] = field(default_factory=dict)
    """Measured efficiencies and additive terms of predictions (`bench calibrate`); empty: typical ones."""
    calibrated: str = ""
    """What they were fitted to."""
    packages: dict[str, str | None] = field(default_factory=dict)
    """Import name → version, None when not installed; empty when this is not the machine we are on."""
    torch: str | None = None
    cc: str | None = None
    """C compiler (Triton builds its launchers with it)."""
    cxx: str | None = None
    """C++ compiler (Inductor on CPU)."""
    python_headers: bool = False
    loopback: bool = True
    """The machine can connect to itself, as ranks do; also of a plan that does not say."""
    is_present: bool = True
    """False for a machine that is only planned for: nothing can be run, and library rules do not apply."""


def machine_facts(hardware: Hardware) -> Machine:
    """The machine as ranks and records know it: plain data."""
    return cast(Machine, asdict(hardware))


def detect() -> Hardware:
    """This machine: its visible GPUs, or its CPU where there are none that the installed torch can use."""
    torch = package_version("torch")
    gpus = [] if torch is None or "+cpu" in torch else list_gpus()
    machine = _from_gpus(gpus) if gpus else _from_cpu()
    return _with_libraries(machine)


def resolve(config: HardwareConfig, devices: int | None = None) -> Hardware:
    """The machine that `config` names.

    `auto`, or the name of what is here, is this machine, with any value that overrides set on top. Another name is
    a machine to plan for: as many devices as its file says, or `devices` when the file leaves it open.
    """
    name = config.name
    here = _with_libraries(_from_cpu()) if name == "cpu" else detect()
    if name in ("auto", here.name):
        return _overlay(here, config)
    num_devices = config.num_devices or devices or 1
    planned = Hardware(
        name=name, device_type="cuda", device_name=name, num_devices=1, memory_bytes=None, is_present=False
    )
    return replace(_overlay(planned, config), memory_bytes=config.memory_bytes, num_devices=num_devices)


def usable_devices(hardware: Hardware) -> int:
    """How many ranks a multi-device strategy gets a node when no override says."""
    return CPU_RANKS if hardware.device_type == "cpu" else hardware.num_devices


def as_filed(measured: Hardware) -> Hardware:
    """A machine of a sweep with the calibration that its device's file has by now; as it was where there is none."""
    known = next((file for file in device_files() if file.name == measured.name), None)
    return replace(measured, calibration=known.calibration) if known else measured


def device_files() -> list[HardwareConfig]:
    """Every device in conf/hardware that can be recognised by name."""
    texts = [path.read_text(encoding="utf-8") for path in sorted((config_dir() / "hardware").glob("*.yaml"))]
    known = [typed_section("hardware", yaml.safe_load(text)) for text in texts]
    return [device for device in known if device.match]


def find_device(device_name: str) -> HardwareConfig | None:
    """The device file whose `match` finds the driver's name; None for a device we have no datasheet of."""
    return next((device for device in device_files() if re.search(str(device.match), device_name)), None)


def list_gpus(environ: Mapping[str, str] = os.environ) -> list[Gpu]:
    """The GPUs that a process with this environment sees, in its order; empty without driver or devices."""
    return visible_gpus(read_nvml(), environ.get("CUDA_VISIBLE_DEVICES"))


def visible_gpus(gpus: Sequence[Gpu], visible: str | None) -> list[Gpu]:
    """Apply CUDA_VISIBLE_DEVICES: indices or UUID prefixes; as in CUDA, the list ends at the first unknown entry."""
    if visible is None:
        return list(gpus)
    chosen: list[Gpu] = []
    for word in (part.strip() for part in visible.split(",")):
        found = _find_gpu(gpus, word)
        if found is None or found in chosen:
            break
        chosen.append(found)
    return chosen


def read_nvml() -> list[Gpu]:
    """Every GPU of the machine by NVML; empty where there is no driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        return [_read_gpu(pynvml, index) for index in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError:
        return []
    finally:
        pynvml.nvmlShutdown()


def free_memory_bytes(hardware: Hardware) -> int | None:
    """Free memory now, of the fullest visible device (CPU: available RAM); None when nobody can say."""
    if hardware.device_type == "cpu":
        return min(psutil.virtual_memory().available, hardware.memory_bytes or 2**63)
    import pynvml

    try:
        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByUUID(gpu.uuid) for gpu in list_gpus()]
        return min((int(pynvml.nvmlDeviceGetMemoryInfo(handle).free) for handle in handles), default=None)
    except pynvml.NVMLError:
        return None


def package_version(distribution: str) -> str | None:
    """The installed version, without importing the package; None when it is not installed."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def find_compiler(variable: str, *names: str) -> str | None:
    """The compiler that `$variable` names, else the first of `names` on PATH."""
    words = (os.environ.get(variable, "").split() or [""])[0]
    return next((found for found in map(shutil.which, filter(None, (words, *names))) if found), None)


def has_python_headers() -> bool:
    """Whether Python.h is installed (Inductor and Triton compile extensions against it)."""
    return Path(sysconfig.get_paths()["include"], "Python.h").is_file()


def ram_bytes(cgroup_limit: Path = Path("/sys/fs/cgroup/memory.max")) -> int:
    """RAM of the machine, or what the container may use of it."""
    total = int(psutil.virtual_memory().total)
    try:
        return min(total, int(cgroup_limit.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return total


def cpu_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's model name."""
    try:
        found = re.search(
            r"^model name\s*:\s*(.+)$", cpuinfo.read_text(encoding="utf-8", errors="replace"), re.MULTILINE
        )
    except OSError:
        return "CPU"
    return found.group(1).strip() if found else "CPU"


def _from_gpus(gpus: Sequence[Gpu]) -> Hardware:
    first = gpus[0]
    machine = Hardware(
        name="unknown",
        device_type="cuda",
        device_name=first.name,
        num_devices=len(gpus),
        memory_bytes=min(gpu.memory_bytes for gpu in gpus),
        compute_capability=first.compute_capability,
    )
    known = find_device(first.name)
    return machine if known is None else _overlay(machine, replace(known, memory_bytes=None, num_devices=None))


def _from_cpu() -> Hardware:
    return Hardware(
        name="cpu",
        device_type="cpu",
        device_name=cpu_name(),
        num_devices=1,
        memory_bytes=ram_bytes(),
        source="measured on the machine; no peak is claimed",
    )


def _with_libraries(machine: Hardware) -> Hardware:
    return replace(
        machine,
        packages={name: package_version(distribution) for name, distribution in PACKAGES.items()},
        torch=package_version("torch"),
        cc=find_compiler("CC", "gcc", "clang", "cc"),
        cxx=find_compiler("CXX", "g++", "clang++"),
        python_headers=has_python_headers(),
        loopback=has_loopback(),
    )


_OVERLAID = {item.name for item in fields(Hardware)} - {"name", "packages", "device_name"}


def _overlay(machine: Hardware, config: HardwareConfig) -> Hardware:
    """`machine` with every value that the configuration sets; sizes that the driver measured win over a file's."""
    chosen = {key: value for key, value in vars(config).items() if key in _OVERLAID and value not in (None, {}, "")}
    if machine.is_present and config.name == machine.name:
        chosen = {key: value for key, value in chosen.items() if key not in ("memory_bytes", "num_devices")}
    name = machine.name if config.name == "auto" else config.name
    return replace(machine, **chosen, name=name)


def _find_gpu(gpus: Sequence[Gpu], word: str) -> Gpu | None:
    if word.isdigit():
        return next((gpu for gpu in gpus if gpu.index == int(word)), None)
    return next((gpu for gpu in gpus if word.startswith("GPU-") and gpu.uuid.startswith(word)), None)


def _read_gpu(nvml: Any, index: int) -> Gpu:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    major, minor = nvml.nvmlDeviceGetCudaComputeCapability(handle)
    return Gpu(
        index=index,
        uuid=_text(nvml.nvmlDeviceGetUUID(handle)),
        name=_text(nvml.nvmlDeviceGetName(handle)),
        memory_bytes=int(nvml.nvmlDeviceGetMemoryInfo(handle).total),
        compute_capability=f"{major}.{minor}",
    )


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
