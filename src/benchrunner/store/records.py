"""The records of a sweep: each read as its own cell's, or named as what is wrong with it."""

from collections.abc import Iterable
from pathlib import Path

from benchrunner.core.errors import DamagedFile
from benchrunner.core.files import read_json
from benchrunner.core.paths import SweepPaths
from benchrunner.core.record import RECORD_BYTES, SCHEMA_VERSION, Record
from benchrunner.core.text import first_line
from benchrunner.plan.plan import PlannedCell


def read_records(cells: Iterable[PlannedCell], paths: SweepPaths) -> tuple[dict[str, Record], list[str]]:
    """Place → record, of every process of a cell that has one which can be read as its own; and what is wrong with the
    others.
    """
    records: dict[str, Record] = {}
    problems: list[str] = []
    for planned in cells if paths.root.joinpath("cells").is_dir() else ():
        record, problem = read_record(paths.cell(planned.place).record, planned)
        records |= {planned.place: record} if record else {}
        problems += [problem] if problem else []
    return records, problems


def read_record(path: Path, planned: PlannedCell) -> tuple[Record | None, str | None]:
    """The record of a cell, or what is wrong with the file; neither when there is none."""
    name = f"cells/{planned.place}/{path.name}"
    try:
        record = read_json(path, Record, limit_bytes=RECORD_BYTES, version=SCHEMA_VERSION)
    except FileNotFoundError:
        return None, None
    except DamagedFile as error:
        return None, f"{name} is damaged: {error}"
    if record.cell_id != planned.cell.cell_id:
        return None, f"{name} belongs to another cell ({first_line(record.cell_id, 40)}) and was skipped"
    if record.config_digest != planned.cell.config_digest:
        digest = first_line(record.config_digest, 40)
        return None, f"{name} was made with another configuration ({digest}) and was skipped"
    return record, None
