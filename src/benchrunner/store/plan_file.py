"""plan.json: the frozen matrix, written once, read by all that follows; and the document of `bench plan --json`."""

import json
import os
import re
import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any, cast

from benchrunner.core import arithmetic
from benchrunner.core.axes import AXES
from benchrunner.core.cell import (
    Cell,
    Sizes,
    identity_overrides,
)
from benchrunner.core.errors import DamagedFile, OtherVersion, SweepDirError, UsageError
from benchrunner.core.files import decode, read_bytes, write_text
from benchrunner.core.paths import PLAN, SweepPaths
from benchrunner.core.schema import REQUIRED, SECTIONS, Config, typed_section
from benchrunner.core.secrets import exposed_variable
from benchrunner.core.text import first_line
from benchrunner.core.units import MIB
from benchrunner.plan.plan import Plan, PlannedCell
from benchrunner.store.plan_check import require_as_planned
from benchrunner.store.plan_form import CellEntry, PlanFile
from benchrunner.store.probes import with_probes

SCHEMA_VERSION = 1

PLAN_BYTES = 512 * MIB

SLUG = re.compile(r"[a-z0-9_-][a-z0-9._-]*")
"""What names a cell's directory."""


def write_plan(plan: Plan, out_dir: str | os.PathLike[str]) -> Path:
    """Create the sweep's directory with its `plan.json`; it appears under its name only when it is complete.

    Returns:
        `out_dir/<sweep>/<stamp>`; the stamp is exclusive.

    Raises:
        UsageError: the place cannot be written.
    """
    home = Path(out_dir) / plan.sweep_name
    if not str(home).isprintable():
        raise UsageError(f"out_dir: {str(home)!r} holds a line break or another character that cannot be printed")
    stamp = datetime.fromisoformat(plan.created_at).strftime("%Y%m%dT%H%M%SZ")
    temporary = home / f".tmp-{stamp}-{os.getpid()}"
    try:
        temporary.mkdir(parents=True)
        text = json.dumps(plan_to_dict(plan), separators=(",", ":"), allow_nan=False, default=asdict)
        _require_no_secret(text)
        write_text(temporary / PLAN, f"{text}\n")
        final = _rename_exclusively(temporary, home, stamp)
        _point_latest(Path(out_dir), final)
    except OSError as error:
        raise UsageError(f"out_dir: cannot write {home}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return final


def _require_no_secret(text: str) -> None:
    """A plan is read again to the letter, so nothing in it can be redacted."""
    if name := exposed_variable(text):
        raise UsageError(
            f"the overrides hold what the environment variable {name} holds, and every table would show it"
        )


def _rename_exclusively(temporary: Path, home: Path, stamp: str) -> Path:
    """A rename onto a directory that holds files fails, so two sweeps never share one."""
    number = 1
    while True:
        final = home / (stamp if number == 1 else f"{stamp}-{number}")
        if not final.exists():
            try:
                temporary.rename(final)
                return final
            except OSError:
                if not final.exists():
                    raise
        number += 1


def _point_latest(out_dir: Path, final: Path) -> None:
    link = out_dir / f".latest-{os.getpid()}"
    link.unlink(missing_ok=True)
    link.symlink_to(final.relative_to(out_dir), target_is_directory=True)
    if (out_dir / "latest").is_dir() and not (out_dir / "latest").is_symlink():
        link.unlink()
        return
    link.replace(out_dir / "latest")


def load_plan(directory: str | os.PathLike[str]) -> Plan:
    """The plan of a sweep's directory, every cell as it was planned, and those that its searches added.

    Raises:
        SweepDirError: no sweep, a damaged file, or one of another version.
    """
    path = SweepPaths(Path(directory)).plan
    try:
        text = read_bytes(path, limit_bytes=PLAN_BYTES)
        plan = plan_from_dict(decode(text, PlanFile, limit_bytes=PLAN_BYTES, version=SCHEMA_VERSION))
        require_as_planned((planned.cell for planned in plan.cells), plan.hardware, json.loads(text))
        return with_probes(plan, SweepPaths(Path(directory)))
    except FileNotFoundError as error:
        why = f"cannot read {PLAN} ({error.strerror})"
        raise SweepDirError(f"{directory}: not a sweep: {why}{_sweeps_below(Path(directory))}") from error
    except OtherVersion as error:
        raise SweepDirError(f"{path}: {error}") from error
    except DamagedFile as error:
        raise SweepDirError(f"{path}: damaged: {error}") from error
    except (KeyError, IndexError, TypeError, ValueError) as error:  # of the configurations inside
        raise SweepDirError(f"{path}: damaged: {type(error).__name__}: {first_line(str(error))}") from error


def _sweeps_below(place: Path) -> str:
    """The newest sweep in a directory of sweeps, which is easily taken for one of them."""
    below = sorted(path.parent for path in place.glob(f"*/{PLAN}") if not path.parent.name.startswith("."))
    return f"; it holds sweeps, the last is {below[-1]}" if below else ""


def plan_to_dict(plan: Plan) -> PlanFile:
    """The plan as plain data: each option once, and of each cell its options and the leaves that it changed."""
    sections = _Sections()
    cells = [planned.cell for planned in plan.cells]
    common = _common_values(cells)
    settings = _common_settings(cells)
    return {
        "schema_version": SCHEMA_VERSION,
        "benchrunner": plan.benchrunner,
        "created_at": plan.created_at,
        "sweep_name": plan.sweep_name,
        "words": plan.arguments,
        "hardware": plan.hardware,
        "common": {key: asdict(value) if key in SECTIONS else value for key, value in common.items()},
        "settings": settings,
        "cells": [_cell_entry(planned, common, settings, sections) for planned in plan.cells],
        "sections": sections.values,
        "cards": dict(plan.cards),
        "notes": list(plan.notes),
    }


class _Sections:
    """Each shared part of the configurations once: key → list of values."""

    def __init__(self) -> None:
        self.values: dict[str, list[dict[str, Any]]] = {}
        self.places: dict[tuple[str, int], int] = {}

    def place(self, key: str, value: Any) -> int:
        """Where in the list of `key` this very section is."""
        if (key, id(value)) not in self.places:
            self.places[key, id(value)] = len(self.values.setdefault(key, []))
            self.values[key].append(asdict(value))
        return self.places[key, id(value)]


def _common_values(cells: Sequence[Cell]) -> dict[str, Any]:
    """The top-level parts of the configuration that all cells share."""
    first, *others = (cell.config for cell in cells)
    return {key: value for key, value in vars(first).items() if all(getattr(one, key) is value for one in others)}


def _common_settings(cells: Sequence[Cell]) -> dict[str, Any]:
    """Changed leaves that do not tell cells apart and that all cells share."""
    first, *others = (cell.overrides for cell in cells)
    settings = {key: value for key, value in first.items() if key not in identity_overrides(first)}
    return {key: value for key, value in settings.items() if all(key in one and one[key] == value for one in others)}


def _cell_entry(
    planned: PlannedCell, common: Mapping[str, Any], settings: Mapping[str, Any], sections: _Sections
) -> CellEntry:
    cell = planned.cell
    own = [(key, value) for key, value in vars(cell.config).items() if key not in common]
    entry: CellEntry = {
        "cell_id": cell.cell_id,
        "config_digest": cell.config_digest,
        "slug": cell.slug,
        "options": {key: sections.place(key, value) for key, value in own if key in SECTIONS},
        "scalars": {key: value for key, value in own if key not in SECTIONS},
        "overrides": {key: value for key, value in cell.overrides.items() if key not in settings},
        "sizes": [getattr(cell.sizes, name) for name in Sizes.__slots__],
        "verdict": planned.verdict,
        "reason_code": planned.reason_code,
        "reason": planned.reason,
        "flags": planned.flags,
        "predicted": planned.predicted,
        "evidence": planned.evidence,
        "left_out": list(planned.left_out),
    }
    return cast(CellEntry, {key: value for key, value in entry.items() if value not in (None, {}, [])})


def plan_from_dict(data: PlanFile) -> Plan:
    """The inverse of `plan_to_dict`.

    Raises:
        ValueError, KeyError, IndexError, TypeError: its parts do not fit together.
    """
    if not data["cells"]:
        raise DamagedFile("it has no cells")
    _require_values(data)
    return Plan(
        cells=[_cell_from(entry, data) for entry in data["cells"]],
        hardware=data["hardware"],
        sweep_name=data["sweep_name"],
        arguments=data["words"],
        created_at=data["created_at"],
        benchrunner=data["benchrunner"],
        cards=data.get("cards", {}),
        notes=tuple(data.get("notes", ())),
    )


def _require_values(data: PlanFile) -> None:
    """A key of a section that has no default has to be there."""
    shared = {key: [value] for key, value in _shared(data).items() if key in SECTIONS}
    missing = [
        f"{key}.{name}"
        for key, sections in (*shared.items(), *data["sections"].items())
        for section in sections
        for name, value in vars(section).items()
        if value == REQUIRED
    ]
    if missing:
        raise DamagedFile(f"{missing[0]}: field required")


def _cell_from(entry: CellEntry, data: PlanFile) -> PlannedCell:
    if not SLUG.fullmatch(entry["slug"]):
        raise DamagedFile(f"cells: {entry['slug']!r} is no slug")
    own = {key: data["sections"][key][place] for key, place in entry.get("options", {}).items()}
    config = Config(**{**_shared(data), **entry.get("scalars", {}), **own})
    cell = Cell(
        cell_id=entry["cell_id"],
        config_digest=entry["config_digest"],
        slug=entry["slug"],
        axes={group: getattr(config, group).name for group in AXES},
        overrides={**entry.get("overrides", {}), **data["settings"]},
        config=config,
        sizes=Sizes(**dict(zip(Sizes.__slots__, entry["sizes"], strict=True))),
    )
    return PlannedCell(
        cell=cell,
        verdict=entry["verdict"],
        reason_code=entry.get("reason_code"),
        reason=entry.get("reason"),
        flags=entry.get("flags", []),
        predicted=entry.get("predicted"),
        evidence=entry.get("evidence"),
        left_out=tuple(entry.get("left_out", ())),
    )


def _shared(data: PlanFile) -> dict[str, Any]:
    """What all cells share; a section that an old plan has by its name alone becomes one."""
    common: Mapping[str, Any] = data["common"]
    named = {key: value for key, value in common.items() if key in SECTIONS and isinstance(value, str)}
    return {**common, **{key: typed_section(key, name) for key, name in named.items()}}


def plan_document(plan: Plan) -> dict[str, Any]:
    """The plan for other programs: `bench plan --json`."""
    return {
        "schema_version": SCHEMA_VERSION,
        "hardware": asdict(plan.hardware),
        "cells": [_document_entry(planned) for planned in plan.cells],
    }


def _document_entry(planned: PlannedCell) -> dict[str, Any]:
    cell, sizes = planned.cell, planned.cell.sizes
    return {
        "cell_id": cell.cell_id,
        "config_digest": cell.config_digest,
        "slug": cell.slug,
        "axes": dict(cell.axes),
        "overrides": shlex.join(cell.as_overrides()),
        "micro_batch_size": None if cell.search else sizes.micro_batch_size,
        "global_batch_size": None if cell.search else sizes.global_batch_size,
        "search": cell.search,
        "seq_len": sizes.seq_len,
        "devices": sizes.devices,
        "nodes": sizes.nodes,
        "world_size": sizes.world_size,
        "num_parameters": arithmetic.num_parameters(cell.config.model),
        "verdict": planned.verdict,
        "reason_code": planned.reason_code,
        "reason": planned.reason,
        "flags": planned.flags,
        "predicted": planned.predicted,
        "left_out": list(planned.left_out),
    }
