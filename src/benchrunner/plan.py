"""The frozen matrix: every cell with its verdict, decided before anything runs, and its file `plan.json`."""

import json
import os
import shlex
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchrunner import __version__, arithmetic
from benchrunner.cell import (
    Cell,
    Sizes,
    config_digest,
    derive_sizes,
    digest_section,
    identity,
    identity_overrides,
    make_slug,
)
from benchrunner.compat import Rule
from benchrunner.errors import SweepDirError, UsageError
from benchrunner.hardware import Hardware, usable_devices
from benchrunner.paths import PLAN, SweepPaths
from benchrunner.record import write_text
from benchrunner.schema import AXES
from benchrunner.verdict import Judge, Verdict

if TYPE_CHECKING:
    from benchrunner.hydra_app import Expansion
    from benchrunner.matrix import Row

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedCell(Verdict):
    """A cell and what was decided about it."""

    cell: Cell


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Every cell of a sweep, in order."""

    cells: list[PlannedCell]
    hardware: Hardware
    sweep_name: str
    words: list[str]
    created_at: str
    """ISO 8601, UTC."""
    benchrunner: str = __version__

    @property
    def out_dir(self) -> str:
        """Where the sweep's directory goes; all cells agree."""
        return str(self.cells[0].cell.config["out_dir"])


# --- making it -----------------------------------------------------------------------------------------------------


def make_plan(
    expansion: "Expansion",
    hardware: Hardware,
    rules: Sequence[Rule],
    *,
    launch: bool = False,
    num_cores: int | None = None,
) -> Plan:
    """Decide about every row.

    Args:
        expansion: the composed rows.
        hardware: the machine that is planned for.
        rules: from `compat.load_rules`.
        launch: the plan is about to be run, so a machine that is not this one has no devices.
        num_cores: CPU cores; null: this machine's.
    """
    judge = Judge(hardware, rules, launch, num_cores or os.cpu_count() or 1)
    cells = make_cells(expansion.rows, hardware)
    verdicts = [judge.decide(cell, row.excluded_reason) for cell, row in zip(cells, expansion.rows, strict=True)]
    return Plan(
        cells=[_planned(cell, verdict) for cell, verdict in zip(cells, verdicts, strict=True)],
        hardware=hardware,
        sweep_name=expansion.sweep_name,
        words=list(expansion.words),
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _planned(cell: Cell, verdict: Verdict) -> PlannedCell:
    return PlannedCell(cell=cell, **{name: getattr(verdict, name) for name in Verdict.__slots__})


def make_cells(rows: Iterable["Row"], hardware: Hardware) -> list[Cell]:
    """The cells of the rows, with sizes for `hardware`; slugs are unique in the list."""
    section_digest = _remember_by_identity(digest_section)
    visible = usable_devices(hardware)
    slugs: set[str] = set()
    cells = []
    for row in rows:
        overrides = _ordered(row.overrides)
        cell_id = identity(row.axes, overrides)
        slug = make_slug(row.axes, overrides, cell_id)
        if slug in slugs:
            slug = f"{slug[:-14]}-{cell_id[6:]}-{cell_id[:6]}"
        slugs.add(slug)
        cells.append(
            Cell(
                cell_id=cell_id,
                config_digest=config_digest(row.config, section_digest),
                slug=slug,
                axes=row.axes,
                overrides=overrides,
                config=row.config,
                sizes=derive_sizes(row.config, visible),
            )
        )
    return cells


def _ordered(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """What tells cells apart first, the settings of the whole sweep after it."""
    return {**identity_overrides(overrides), **overrides}


def _remember_by_identity(function: Callable[[Mapping[str, Any]], str]) -> Callable[[Mapping[str, Any]], str]:
    """Memoise on the identity of shared dicts, which stay alive as long as the rows do."""
    memo: dict[int, str] = {}

    def remembered(value: Mapping[str, Any]) -> str:
        if id(value) not in memo:
            memo[id(value)] = function(value)
        return memo[id(value)]

    return remembered


# --- the file ------------------------------------------------------------------------------------------------------


def write_plan(plan: Plan, out_dir: str | os.PathLike[str]) -> Path:
    """Create the sweep's directory with its `plan.json`; it appears under its name only when it is complete.

    Returns:
        `out_dir/<sweep>/<stamp>`; the stamp is exclusive.

    Raises:
        UsageError: the place cannot be written.
    """
    home = Path(out_dir) / plan.sweep_name
    stamp = datetime.fromisoformat(plan.created_at).strftime("%Y%m%dT%H%M%SZ")
    temporary = home / f".tmp-{stamp}-{os.getpid()}"
    try:
        temporary.mkdir(parents=True)
        write_text(temporary / PLAN, json.dumps(plan_to_dict(plan), separators=(",", ":"), allow_nan=False) + "\n")
        final = _rename_exclusively(temporary, home, stamp)
        _point_latest(Path(out_dir), final)
    except OSError as error:
        raise UsageError(f"out_dir: cannot write {home}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return final


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
    """The plan of a sweep's directory, every cell as it was planned.

    Raises:
        SweepDirError: no sweep, a damaged file, or one of another version.
    """
    path = SweepPaths(Path(directory)).plan
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SweepDirError(f"{directory}: not a sweep: cannot read {PLAN} ({error.strerror})") from error
    except ValueError as error:
        raise SweepDirError(f"{path}: damaged: {error}") from error
    if not isinstance(data, dict) or data.get("schema_version") != SCHEMA_VERSION:
        found = data.get("schema_version") if isinstance(data, dict) else None
        raise SweepDirError(f"{path}: schema_version {found!r}, this benchrunner reads {SCHEMA_VERSION}")
    try:
        return plan_from_dict(data)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise SweepDirError(f"{path}: damaged: {type(error).__name__}: {error}") from error


def plan_to_dict(plan: Plan) -> dict[str, Any]:
    """The plan as plain data: each option once, and of each cell its options and the leaves that it changed."""
    sections = _Sections()
    cells = [planned.cell for planned in plan.cells]
    common = {key: value for key, value in cells[0].config.items() if all(cell.config[key] is value for cell in cells)}
    settings = _common_settings(cells)
    return {
        "schema_version": SCHEMA_VERSION,
        "benchrunner": plan.benchrunner,
        "created_at": plan.created_at,
        "sweep_name": plan.sweep_name,
        "words": plan.words,
        "hardware": asdict(plan.hardware),
        "common": common,
        "settings": settings,
        "cells": [_cell_entry(planned, common, settings, sections) for planned in plan.cells],
        "sections": sections.values,
    }


class _Sections:
    """Each shared part of the configurations once: key → list of values."""

    def __init__(self) -> None:
        self.values: dict[str, list[Any]] = {}
        self.places: dict[tuple[str, int], int] = {}

    def place(self, key: str, value: Mapping[str, Any]) -> int:
        """Where in the list of `key` this very dict stands."""
        if (key, id(value)) not in self.places:
            self.places[key, id(value)] = len(self.values.setdefault(key, []))
            self.values[key].append(value)
        return self.places[key, id(value)]


def _common_settings(cells: Sequence[Cell]) -> dict[str, Any]:
    """Changed leaves that do not tell cells apart: the same for the whole sweep."""
    first = cells[0].overrides
    return {key: value for key, value in first.items() if key not in identity_overrides(first)}


def _cell_entry(
    planned: PlannedCell, common: Mapping[str, Any], settings: Mapping[str, Any], sections: _Sections
) -> dict[str, Any]:
    cell = planned.cell
    own = [(key, value) for key, value in cell.config.items() if key not in common]
    entry = {
        "cell_id": cell.cell_id,
        "config_digest": cell.config_digest,
        "slug": cell.slug,
        "options": {key: sections.place(key, value) for key, value in own if isinstance(value, Mapping)},
        "scalars": {key: value for key, value in own if not isinstance(value, Mapping)},
        "overrides": {key: value for key, value in cell.overrides.items() if key not in settings},
        "sizes": [getattr(cell.sizes, name) for name in Sizes.__slots__],
        "verdict": planned.verdict,
        "reason_code": planned.reason_code,
        "reason": planned.reason,
        "flags": planned.flags,
        "predicted": planned.predicted,
        "evidence": planned.evidence,
    }
    return {key: value for key, value in entry.items() if value not in (None, {}, [])}


def plan_from_dict(data: Mapping[str, Any]) -> Plan:
    """The inverse of `plan_to_dict`."""
    fields = {name: data[name] for name in ("sweep_name", "words", "created_at", "benchrunner")}
    return Plan(
        cells=[_cell_from(entry, data) for entry in data["cells"]], hardware=Hardware(**data["hardware"]), **fields
    )


def _cell_from(entry: Mapping[str, Any], data: Mapping[str, Any]) -> PlannedCell:
    config = {**data["common"], **entry.get("scalars", {})}
    for key, place in entry.get("options", {}).items():
        config[key] = data["sections"][key][place]
    cell = Cell(
        cell_id=entry["cell_id"],
        config_digest=entry["config_digest"],
        slug=entry["slug"],
        axes={group: config[group]["name"] for group in AXES},
        overrides={**entry.get("overrides", {}), **data["settings"]},
        config=config,
        sizes=Sizes(**dict(zip(Sizes.__slots__, entry["sizes"], strict=True))),
    )
    rest = {name: entry[name] for name in ("reason_code", "reason", "flags", "predicted", "evidence") if name in entry}
    return PlannedCell(cell=cell, verdict=entry["verdict"], **rest)


# --- bench plan ----------------------------------------------------------------------------------------------------


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
        "overrides": shlex.join(cell.words()),
        "micro_batch_size": sizes.micro_batch_size,
        "global_batch_size": sizes.global_batch_size,
        "seq_len": sizes.seq_len,
        "devices": sizes.devices,
        "nodes": sizes.nodes,
        "world_size": sizes.world_size,
        "num_parameters": arithmetic.num_parameters(cell.config["model"]),
        "verdict": planned.verdict,
        "reason_code": planned.reason_code,
        "reason": planned.reason,
        "flags": planned.flags,
        "predicted": planned.predicted,
    }
