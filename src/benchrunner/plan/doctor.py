"""`bench doctor`: what this machine is, which axis values it can run, and the reason for each that it cannot."""

import importlib.util
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from benchrunner.core.cell import Cell
from benchrunner.core.paths import config_dir
from benchrunner.core.units import GIB
from benchrunner.machine import environment
from benchrunner.machine.hardware import PACKAGES, Hardware, detect, free_memory_bytes, read_nvml
from benchrunner.plan.rules import Rules, load_rules
from benchrunner.plan.verdict import Preflight

EXAMINED = ("workload", "strategy", "precision", "compile", "activation_checkpointing", "engine", "optimizer")
"""The axes that are tried out, value by value."""

Line = tuple[str, str, str]
"""yes | no, value, and why not or with what."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What was found."""

    facts: list[tuple[str, str]]
    """(label, text)"""
    axes: Mapping[str, list[Line]]
    """Axis → lines; each is found when it is asked for."""
    warnings: list[str] = field(default_factory=list)


def examine(machine: Hardware | None = None) -> Diagnosis:
    """Examine this machine (or a given one)."""
    machine = machine or detect()
    combinations = Combinations(machine, load_rules(config_dir() / "compat.yaml"))
    return Diagnosis(machine_facts(machine), combinations, warnings(machine))


class Combinations(Mapping[str, list[Line]]):
    """Every combination of the examined axes with the debug model; an axis is judged when it is asked for."""

    def __init__(self, machine: Hardware, rules: Rules) -> None:
        self._machine, self._rules = machine, rules
        self._values = {axis: _options(axis) for axis in EXAMINED}

    def __iter__(self) -> Iterator[str]:
        return iter(EXAMINED)

    def __len__(self) -> int:
        return len(EXAMINED)

    def __getitem__(self, axis: str) -> list[Line]:
        return [self.judge(axis, value) for value in self._values[axis]]

    def judge(self, axis: str, value: str) -> Line:
        """Whether any combination with this value can run, the nearest to the usual options first; else why not."""
        refused = None
        for cell in self._cells:
            if cell.axes[axis] == value:
                verdict = self._preflight.decide(cell, None)
                if verdict.verdict == "run":
                    return "yes", value, _with(cell, axis)
                refused = refused or verdict
        assert refused is not None, f"{axis}={value} is in no combination"
        return "no", value, f"{refused.reason_code}: {refused.reason}"

    @cached_property
    def _preflight(self) -> Preflight:
        return Preflight(self._machine, self._rules, False, os.cpu_count() or 1)

    @cached_property
    def _cells(self) -> list[Cell]:
        """All of them, those nearest to the usual options first."""
        from benchrunner.config import hydra_app
        from benchrunner.plan.planner import make_cells

        overrides = [f"{axis}={','.join(values)}" for axis, values in self._values.items()]
        cells = make_cells(hydra_app.expand(overrides, multirun=True).rows, self._machine)
        usual = _usual()
        return sorted(cells, key=lambda cell: sum(cell.axes[axis] != usual[axis] for axis in EXAMINED))


def _options(axis: str) -> list[str]:
    """The options of an axis, aliases apart."""
    from benchrunner.config import hydra_app

    return [option.name for option in hydra_app.list_options(axis) if option.alias_of is None]


@cache
def _usual() -> Mapping[str, str]:
    """Axis → the option of a bare `bench`."""
    from benchrunner.config import hydra_app

    return hydra_app.expand([], multirun=False).rows[0].axes


def _with(cell: Cell, axis: str) -> str:
    """What the value needs beside it, where the usual options do not do."""
    others = [f"{name}={cell.axes[name]}" for name in EXAMINED if name != axis and cell.axes[name] != _usual()[name]]
    return f"with {' '.join(others)}" if others else ""


def diagnosis_document(diagnosis: Diagnosis) -> dict[str, Any]:
    """What was found, for other programs: `bench doctor --json`."""
    return {
        "facts": dict(diagnosis.facts),
        "axes": {
            axis: [{"value": value, "works": works == "yes", "note": note or None} for works, value, note in lines]
            for axis, lines in diagnosis.axes.items()
        },
        "warnings": list(diagnosis.warnings),
    }


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
