"""The records of a sweep: each read as its own cell's, or named as what is wrong with it."""

import json
from collections.abc import Iterable
from pathlib import Path

from benchrunner.core.paths import SweepPaths
from benchrunner.core.record import Record, record_from_dict
from benchrunner.plan.plan import PlannedCell


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
