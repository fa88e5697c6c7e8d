"""What a sweep already knows: its records, its unfinished attempts, and what it was measured with."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from benchrunner.errors import SweepDirError
from benchrunner.evidence import Evidence, gather
from benchrunner.hardware import Hardware
from benchrunner.launch import drop_cold_cache
from benchrunner.paths import AttemptPaths, SweepPaths
from benchrunner.plan import PlannedCell
from benchrunner.processes import kill_marked
from benchrunner.record import Record, record_from_dict, write_json
from benchrunner.recording import Attempt

KEPT = frozenset({"ok", "invalid", "oom", "unsupported"})
"""Statuses that a resumed sweep keeps; the others run again."""

KEPT_CODES = frozenset({"skipped.predicted_oom", "skipped.excluded"})

TOLD: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "benchrunner": lambda data: data.get("benchrunner"),
    "torch": lambda data: (data.get("versions") or {}).get("torch"),
    "driver": lambda data: data.get("driver"),
    "GPU": lambda data: ", ".join(sorted({str(gpu.get("name")) for gpu in data.get("gpus") or []})) or None,
}
"""What must be equal for two numbers to stand in one table → where the environment says it."""


def read_records(cells: Iterable[PlannedCell], paths: SweepPaths) -> tuple[dict[str, Record], list[str]]:
    """Slug → record, of every cell that has one which can be read as its own; and what is wrong with the others."""
    records: dict[str, Record] = {}
    problems: list[str] = []
    for planned in cells if paths.root.joinpath("cells").is_dir() else ():
        record, problem = read_record(paths.cell(planned.cell.slug).record, planned)
        records |= {planned.cell.slug: record} if record else {}
        problems += [problem] if problem else []
    return records, problems


def read_record(path: Path, planned: PlannedCell) -> tuple[Record | None, str | None]:
    """The record of a cell, or what is wrong with the file; neither when there is none."""
    name = f"cells/{path.parent.name}/{path.name}"
    try:
        record = record_from_dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None, None
    except OSError as error:
        return None, f"{name} cannot be read: {error.strerror}"
    except (ValueError, AttributeError) as error:
        return None, f"{name} is damaged or no record and was skipped: {str(error).splitlines()[0]}"
    if record.cell_id != planned.cell.cell_id:
        return None, f"{name} belongs to another cell ({record.cell_id}) and was skipped"
    return record, None


def is_kept(record: Record, fault: str | None = None) -> bool:
    """Whether a resumed sweep keeps this verdict instead of running the cell again.

    One that was made under a planted fault is kept only while the same `fault` is planted.
    """
    return record.fault in (None, fault) and (record.status in KEPT or record.reason_code in KEPT_CODES)


def left_to_do(
    cells: Iterable[PlannedCell],
    records: Mapping[str, Record],
    hardware: Hardware,
    fault: str | None = None,
    *,
    keep_inferred: bool = True,
) -> list[PlannedCell]:
    """The cells that are to be launched: planned to run, or skipped for devices that are here now; and not kept."""

    def is_settled(record: Record | None) -> bool:
        return record is not None and is_kept(record, fault) and (keep_inferred or "inferred" not in record.flags)

    runnable = [planned for planned in cells if planned.verdict == "run" or _has_devices_now(planned, hardware)]
    return [planned for planned in runnable if not is_settled(records.get(planned.cell.slug))]


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which of the cells that are left are run now."""

    statuses: frozenset[str] = frozenset()
    """Those that ended so; empty: any. A cell without a record is `skipped`."""
    cells: tuple[str, ...] = ()
    """Patterns (`*`, `?`, `[…]`) of a slug or id; empty: all."""

    def takes(self, planned: PlannedCell, record: Record | None) -> bool:
        """Whether a cell is run."""
        status = record.status if record else "skipped"
        names = (planned.cell.slug, planned.cell.cell_id)
        fits = any(fnmatchcase(name, pattern) for name in names for pattern in self.cells)
        return (not self.statuses or status in self.statuses) and (not self.cells or fits)


def _has_devices_now(planned: PlannedCell, hardware: Hardware) -> bool:
    on_gpus = hardware.is_present and hardware.device_type == "cuda"
    return planned.reason_code == "skipped.devices" and on_gpus and planned.cell.sizes.devices <= hardware.num_devices


# --- attempts without a record -------------------------------------------------------------------------------------


def recover(planned: PlannedCell, paths: SweepPaths, known: int = 0) -> tuple[Evidence, Attempt] | None:
    """The last attempt of a cell, if every rank reached its end although no record was written; else null.

    `known` is the attempt that the cell's record is of.

    Whatever the attempt left running or in its cold cache is removed.
    """
    place = paths.cell(planned.cell.slug)
    number = place.num_attempts()
    if number <= known:
        return None
    attempt = place.attempt(number)
    drop_cold_cache(attempt)
    try:
        document = json.loads(attempt.cell.read_text(encoding="utf-8"))
        kill_marked(str(document["marker"]))
        evidence = gather(attempt, planned.cell.sizes.world_size)
        return (evidence, _attempt(number, document, attempt)) if evidence.is_complete() else None
    except (OSError, ValueError, KeyError, TypeError):  # killed while it wrote: nothing to take over
        return None


def _attempt(number: int, document: Mapping[str, Any], paths: AttemptPaths) -> Attempt:
    return Attempt(
        number=number,
        started_at=document["started_at"],
        wall_s=max(0.0, paths.rank(0).stat().st_mtime - paths.cell.stat().st_mtime),
        devices=document["devices"],
        fault=document["fault"],
        hardware=document["hardware"],
    )


# --- machine and software ------------------------------------------------------------------------------------------


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
    pairs = {name: (read(before), read(now)) for name, read in TOLD.items()}
    return [f"{name} {old or 'none'}, here {new or 'none'}" for name, (old, new) in pairs.items() if old != new]
