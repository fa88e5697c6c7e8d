"""Cells that searches added to a sweep while it ran: a file each in the directory of its search, never changed.

Whoever runs the search writes the same, so that several may.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NotRequired

from typing_extensions import TypedDict

from benchrunner.core.errors import DamagedFile, SweepDirError
from benchrunner.core.files import read_json, write_json
from benchrunner.core.paths import SweepPaths
from benchrunner.core.units import MIB
from benchrunner.plan.plan import Plan, PlannedCell
from benchrunner.plan.predict import Prediction
from benchrunner.plan.search import probe_of

SCHEMA_VERSION = 1

PREFIX = "probe-"


class ProbeFile(TypedDict):
    """One probe: what its search does not say of it."""

    schema_version: int
    micro_batch_size: int
    cell_id: str
    config_digest: str
    slug: str
    flags: list[str]
    predicted: NotRequired[Prediction | None]


def write_probe(paths: SweepPaths, probe: PlannedCell) -> None:
    """Keep that a search tries this cell.

    Raises:
        OSError: it cannot be written.
    """
    cell, home = probe.cell, paths.cell(probe.probe_of).root
    home.mkdir(parents=True, exist_ok=True)
    size = cell.sizes.micro_batch_size
    write_json(
        home / f"{PREFIX}{size}.json",
        ProbeFile(
            schema_version=SCHEMA_VERSION,
            micro_batch_size=size,
            cell_id=cell.cell_id,
            config_digest=cell.config_digest,
            slug=cell.slug,
            flags=probe.flags,
            predicted=probe.predicted,
        ),
    )


def with_probes(plan: Plan, paths: SweepPaths) -> Plan:
    """The plan with every probe behind its search, by size; one that two searches share behind the first.

    Raises:
        SweepDirError: a probe's file is damaged, or says another cell than its search makes.
    """
    if not any(planned.cell.search for planned in plan.cells):
        return plan
    matrix = [planned for planned in plan.cells if not planned.probe_of]
    known = {planned.cell.cell_id for planned in matrix}
    slugs = {planned.cell.slug for planned in matrix}
    cells: list[PlannedCell] = []
    for planned in matrix:
        cells.append(planned)
        for probe in _probes_of(planned, paths, slugs):
            if probe.cell.cell_id not in known:
                known.add(probe.cell.cell_id)
                cells.append(probe)
    return replace(plan, cells=cells)


def _probes_of(search: PlannedCell, paths: SweepPaths, slugs: set[str]) -> Iterable[PlannedCell]:
    if not search.cell.search:
        return []
    files = paths.cell(search.cell.slug).root.glob(f"{PREFIX}*.json")
    return sorted(_read(files, search, slugs), key=lambda probe: probe.cell.sizes.micro_batch_size)


def _read(files: Iterable[Path], search: PlannedCell, slugs: set[str]) -> Iterator[PlannedCell]:
    for path in files:
        try:
            found = read_json(path, ProbeFile, limit_bytes=MIB, version=SCHEMA_VERSION)
            yield _probe(found, search, slugs)
        except FileNotFoundError:  # a directory listed twice
            continue
        except DamagedFile as error:
            raise SweepDirError(f"{path}: damaged: {error}") from error


def _probe(found: ProbeFile, search: PlannedCell, slugs: set[str]) -> PlannedCell:
    size = found["micro_batch_size"]
    if size < 1:
        raise DamagedFile(f"micro_batch_size is {size}")
    cell = probe_of(search.cell, size, slugs)
    if (found["cell_id"], found["slug"]) != (cell.cell_id, cell.slug):
        raise DamagedFile(f"its cell is not that of micro_batch_size={size}; it was edited")
    # A later version may know keys that the digest of this one does not stand for.
    cell = replace(cell, config_digest=found["config_digest"])
    predicted = found.get("predicted")
    return PlannedCell(cell=cell, flags=found["flags"], predicted=predicted, probe_of=search.cell.slug)
