"""What else differs between two sweeps: versions, driver, devices, power and clocks, variables, how they ran."""

from collections.abc import Iterator, Mapping

from benchrunner.compare.side import Side
from benchrunner.core.environment import Environment, GpuState
from benchrunner.core.text import first_line

IGNORED = frozenset({"collected_at", "topology"})
"""Keys of an environment that differ without meaning, or are long."""

STATE = ("sm_clock_mhz", "memory_clock_mhz", "name")
"""Of a GPU: what it happened to do when it was asked, and what is compared before."""

ABSENT = "none"


def suspects(base: Side, new: Side) -> list[str]:
    """Sentences such as `versions.torch 2.11.0 → 2.13.0`, most telling first."""
    before, after = _flat(base.environment), _flat(new.environment)
    keys = [*before, *(key for key in after if key not in before)]
    found = [
        f"{key} {_said(before.get(key))} → {_said(after.get(key))}" for key in keys if before.get(key) != after.get(key)
    ]
    return [*found, *_dirty(base, new), *_order(base, new)]


def _flat(environment: Environment) -> dict[str, object]:
    """Dotted key → value; of the GPUs, what distinguishes them, in their order."""
    plain: Mapping[str, object] = {key: value for key, value in environment.items() if key not in IGNORED}
    found: dict[str, object] = {}
    for key, value in plain.items():
        if key == "gpus":
            found |= _gpus(environment["gpus"])
        elif isinstance(value, Mapping):
            found |= {f"{key}.{name}": item for name, item in value.items()}
        else:
            found[key] = value
    return found


def _gpus(gpus: list[GpuState]) -> dict[str, object]:
    return {
        f"GPU {number} {name}": value
        for number, gpu in enumerate(gpus)
        for name, value in gpu.items()
        if name not in STATE
    }


def _said(value: object) -> str:
    return ABSENT if value is None else first_line(str(value), 80)


def _dirty(base: Side, new: Side) -> Iterator[str]:
    """Two dirty checkouts of one commit may be different programs."""
    if all(side.environment.get("git", {}).get("is_dirty") for side in (base, new)):
        yield "both were measured with uncommitted changes, which nobody can tell apart"


def _order(base: Side, new: Side) -> Iterator[str]:
    """Sweeps that ran one after the other differ in all that drifts."""
    before, after = _starts(base), _starts(new)
    if before and after and before[-1] < after[0]:
        yield f"new was measured after base, from {after[0]}: what drifts with time looks like a difference"
    elif before and after and after[-1] < before[0]:
        yield f"base was measured after new, from {before[0]}: what drifts with time looks like a difference"


def _starts(side: Side) -> list[str]:
    """When its processes began, in order."""
    return sorted(one.started_at for cell in side.cells.values() for one in cell.records if one.started_at)
