"""environment.json: what a sweep was measured with, and whether this machine is still that."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from benchrunner.core.errors import SweepDirError
from benchrunner.core.files import write_json
from benchrunner.core.paths import SweepPaths
from benchrunner.core.record import Record

COMPARED_VALUES: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "benchrunner": lambda data: data.get("benchrunner"),
    "torch": lambda data: (data.get("versions") or {}).get("torch"),
    "driver": lambda data: data.get("driver"),
    "GPU": lambda data: ", ".join(sorted({str(gpu.get("name")) for gpu in data.get("gpus") or []})) or None,
}
"""What must be equal for two numbers to stand in one table → where the environment says it."""


def settle_environment(
    paths: SweepPaths, now: Mapping[str, Any], records: Mapping[str, Record], *, resume: bool, mix: bool
) -> tuple[Mapping[str, Any], list[str], list[str]]:
    """The environment of the records to be made, their flags, and what a reader must know.

    A damaged file is replaced: by what a record was measured with, or where there is none by what is here.

    Raises:
        SweepDirError: the sweep was measured with something else, and nobody said `mix`.
    """
    found, problem = _read_environment(paths)
    before = found or next((record.environment for record in records.values() if record.environment), now)
    if found is None:
        write_json(paths.environment, before)
    notes = [problem] if problem else []
    changes = environment_changes(before, now) if resume else []
    if not changes:
        return before, [], notes
    if not mix:
        raise SweepDirError(f"{paths.root} was measured with {'; '.join(changes)}; resume with --mix to mix them")
    return now, ["mixed_environment"], notes


def _read_environment(paths: SweepPaths) -> tuple[dict[str, Any] | None, str | None]:
    """What `environment.json` holds, or null; and what is wrong with it, if anything."""
    try:
        found = json.loads(paths.environment.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None, None
    except ValueError as error:
        return None, f"{paths.environment.name} is damaged and was replaced: {error}"
    if not isinstance(found, dict):
        return None, f"{paths.environment.name} is damaged and was replaced: no environment"
    return found, None


def environment_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What makes numbers of two environments incomparable: `torch 2.11, here 2.13`, …"""
    pairs = {name: (read(before), read(now)) for name, read in COMPARED_VALUES.items()}
    return [f"{name} {old or 'none'}, here {new or 'none'}" for name, (old, new) in pairs.items() if old != new]
