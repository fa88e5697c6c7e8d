"""`bench doctor`: what this machine is, which axis values it can run, and the reason for each that it cannot."""

import importlib.util
import os
from dataclasses import dataclass, field
from pathlib import Path

from benchrunner.core.paths import config_dir
from benchrunner.core.units import GIB
from benchrunner.machine import environment
from benchrunner.machine.hardware import PACKAGES, Hardware, detect, free_memory_bytes, read_nvml
from benchrunner.plan.rules import Rules, load_rules

EXAMINED = ("workload", "strategy", "precision", "compile", "activation_checkpointing", "engine", "optimizer")
"""The axes that are tried out, value by value."""

WORKLOADS = ("train", "lora", "generate", "forward")
"""A value counts as working when it works with one of these (nf4 cannot train, but finetunes)."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What was found."""

    facts: list[tuple[str, str]]
    """(label, text)"""
    axes: dict[str, list[tuple[str, str, str]]]
    """Axis → lines (yes | no, value, reason)."""
    warnings: list[str] = field(default_factory=list)


def examine(machine: Hardware | None = None) -> Diagnosis:
    """Examine this machine (or a given one)."""
    machine = machine or detect()
    rules = load_rules(config_dir() / "compat.yaml")
    axes = {axis: axis_lines(axis, machine, rules) for axis in EXAMINED}
    return Diagnosis(machine_facts(machine), axes, warnings(machine))


def axis_lines(axis: str, machine: Hardware, rules: Rules) -> list[tuple[str, str, str]]:
    """Every value of an axis: works or not on this machine with the debug model, and why not."""
    from benchrunner.config import hydra_app

    values = [option.name for option in hydra_app.list_options(axis) if option.alias_of is None]
    return [judge_value(axis, value, machine, rules) for value in values]


def judge_value(axis: str, value: str, machine: Hardware, rules: Rules) -> tuple[str, str, str]:
    """(yes | no, value, reason); the value is tried with each of WORKLOADS until one works."""
    from benchrunner.config import hydra_app
    from benchrunner.plan.planner import make_plan

    workloads = (value,) if axis == "workload" else WORKLOADS
    overrides = [f"workload={','.join(workloads)}", *([] if axis == "workload" else [f"{axis}={value}"])]
    planned = make_plan(hydra_app.expand(overrides, multirun=True), machine, rules).cells
    if any(cell.verdict == "run" for cell in planned):
        return "yes", value, ""
    return "no", value, f"{planned[0].reason_code}: {planned[0].reason}"


def _is_cpu(machine: Hardware) -> bool:
    return machine.device_type == "cpu"


def machine_facts(machine: Hardware) -> list[tuple[str, str]]:
    """Device, memory, peaks, libraries, compilers and the environment."""
    peaks = ", ".join(f"{dtype} {flops / 1e12:g}" for dtype, flops in machine.peak_flops.items())
    free = free_memory_bytes(machine)
    headers = "yes" if machine.python_headers else "no"
    return [
        ("Device", f"{machine.num_devices} × {machine.device_name} ({machine.name})"),
        ("Memory", f"{_gib(machine.memory_bytes)} each, {_gib(free)} free"),
        ("Peak TFLOP/s", f"{peaks} ({machine.source})" if peaks else "unknown, so MFU is null"),
        ("Compute capability", machine.compute_capability or "none"),
        ("torch", machine.torch or "not installed"),
        ("Libraries", ", ".join(f"{name} {machine.packages.get(name) or 'missing'}" for name in PACKAGES)),
        ("Compilers", f"C {machine.cc or 'missing'}, C++ {machine.cxx or 'missing'}, Python headers {headers}"),
        *environment.summary_lines(environment.collect())[1:],
    ]


def _gib(value: int | None) -> str:
    return "unknown" if value is None else f"{value / GIB:.1f} GiB"


def warnings(machine: Hardware) -> list[str]:
    """Traps of this machine that would otherwise be met as a puzzling error."""
    found = [_unused_gpus(machine), _second_cudnn(machine)]
    return [warning for warning in found if warning]


def _unused_gpus(machine: Hardware) -> str | None:
    gpus = read_nvml() if _is_cpu(machine) else []
    if not gpus:
        return None
    if "+cpu" in (machine.torch or ""):
        return f"there are {len(gpus)} GPUs, but torch {machine.torch} is built without CUDA"
    return f"there are {len(gpus)} GPUs, but CUDA_VISIBLE_DEVICES={os.environ.get('CUDA_VISIBLE_DEVICES')!r} hides them"


def _second_cudnn(machine: Hardware) -> str | None:
    """Transformer Engine loads cuDNN by the system's search path and fails when that is not PyTorch's own."""
    own = torch_cudnn()
    if machine.packages.get("transformer_engine") is None or own is None:
        return None
    others = [place for place in system_cudnn() if place != own]
    if not others or os.environ.get("CUDNN_HOME"):
        return None
    return (
        f"a second cuDNN ({others[0]}) lies beside PyTorch's own; if Transformer Engine's import fails with "
        f"`libcudnn_heuristic.so.9: undefined symbol`, set CUDNN_HOME={own.parent} "
        f"and put {own} first in LD_LIBRARY_PATH"
    )


def torch_cudnn() -> Path | None:
    """The directory of the cuDNN libraries that came with PyTorch."""
    spec = importlib.util.find_spec("nvidia")
    places = [Path(place) / "cudnn" / "lib" for place in (spec.submodule_search_locations or [])] if spec else []
    return next((place for place in places if any(place.glob("libcudnn.so*"))), None)


def system_cudnn() -> list[Path]:
    """Directories of the loader's search path that hold a cuDNN."""
    named = os.environ.get("LD_LIBRARY_PATH", "").split(":")
    usual = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/local/cuda/lib64"]
    places = [Path(place) for place in [*named, *usual] if place]
    return [place for place in dict.fromkeys(places) if place.is_dir() and any(place.glob("libcudnn*.so*"))]
