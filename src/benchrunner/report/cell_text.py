"""Everything about one cell as sections of lines: what `bench show` prints."""

from collections.abc import Sequence
from pathlib import Path

from benchrunner.core.axes import AXES
from benchrunner.core.paths import SweepPaths
from benchrunner.core.record import PHASES, Record
from benchrunner.core.text import plain, single_line
from benchrunner.report import formatting
from benchrunner.report.cell_details import details_of
from benchrunner.report.columns import command_of
from benchrunner.report.flags import explained
from benchrunner.report.row import Row

TAIL_LINES = 15
TAIL_BYTES = 16_384
LOGS = ("rank*.err", "rank*.out", "agent.log")
"""Of an attempt, the most telling first."""

MARKS = {True: "✓", False: "✗", None: "?"}

Section = tuple[str, list[str]]
"""Title and lines."""


def cell_sections(row: Row, rows: Sequence[Row], paths: SweepPaths, expected: Sequence[str] = ()) -> list[Section]:
    """Verdict, flags, expectations, numbers, evidence, checks, phases, logs, command, the nearest cell that works."""
    record = row.record
    sections = [
        ("Cell", _verdict(row)),
        ("Flags", explained(row)),
        ("Expected of it", [*expected]),
        *(_of_record(row, record, paths) if record else []),
    ]
    sections.append(("Run it again", [command_of(row)]))
    if row.status != "ok":
        sections.append(("Nearest cell that works", _nearest(row, rows)))
    return [(title, lines) for title, lines in sections if lines]


def _verdict(row: Row) -> list[str]:
    why = [] if row.status == "ok" else [f"{row.reason_code}: {single_line(row.reason)}"]
    why += [single_line(row.reason)] if row.status == "ok" and row.planned.cell.search else []
    left_out = [f"does not read: {' '.join(row.planned.left_out)}"] if row.planned.left_out else []
    return [row.planned.cell.slug, row.status, *why, *left_out]


def _of_record(row: Row, record: Record, paths: SweepPaths) -> list[Section]:
    found = details_of(row, "", True)
    phases = [f"{phase}: {record.phases_s[phase]:.2f} s" for phase in PHASES if phase in record.phases_s]
    samples = [", ".join(f"{value:g}" for value in found.get("samples_ms", []))]
    return [
        ("Measured", _numbers(row)),
        ("Evidence", found.get("evidence", [])),
        ("Checks", [_check_line(*check) for check in found.get("checks", [])]),
        ("Phases", phases),
        ("Steps of the window (ms)", [text for text in samples if text]),
        ("Earlier attempts", found.get("earlier", [])),
        *_logs(row, paths),
    ]


def _numbers(row: Row) -> list[str]:
    values = {heading: (form, row.metrics.get(name)) for name, (heading, form) in formatting.MEASURED.items()}
    return [f"{heading}: {form(value)}" for heading, (form, value) in values.items() if isinstance(value, (int, float))]


def _check_line(name: str, ok: bool | None, expected: str, observed: str, note: str) -> str:
    values = [f"expected {expected}" if expected else "", f"observed {observed}" if observed else "", note]
    return f"{MARKS[ok]} {name}: {'; '.join(filter(None, values)) or 'no details'}"


def _logs(row: Row, paths: SweepPaths) -> list[Section]:
    """The ends of the logs of the last attempt; of a cell that is ok, only where they are."""
    folder = paths.root / row.log_folder
    if not folder.is_dir():
        return []
    files = [file for pattern in LOGS for file in sorted(folder.glob(pattern))]
    where = ("Logs", [f"{file}" for file in files])
    if row.status == "ok":
        return [where]
    tails = [(f"End of {file.name}", _tail(file)) for file in files]
    return [where, *((title, lines) for title, lines in tails if lines)]


def _tail(file: Path) -> list[str]:
    """The last lines, without escape sequences; none where the file cannot be read."""
    try:
        with file.open("rb") as stream:
            stream.seek(max(0, file.stat().st_size - TAIL_BYTES))
            text = stream.read().decode("utf-8", "replace")
    except OSError:
        return []
    return [plain(line) for line in text.splitlines() if line.strip()][-TAIL_LINES:]


def _nearest(row: Row, rows: Sequence[Row]) -> list[str]:
    """The cell that is ok and differs in the fewest settings."""
    working = [other for other in rows if other.status == "ok"]
    if not working:
        return ["no cell of this sweep is ok"]
    best = min(working, key=lambda other: len(_differences(row, other)))
    return [f"{best.planned.cell.slug}: {', '.join(_differences(row, best))}", command_of(best)]


def _differences(row: Row, other: Row) -> list[str]:
    """`precision=bf16 (not fp8)`, of options and of changed settings."""
    ours, theirs = row.planned.cell, other.planned.cell
    differ = [axis for axis in AXES if ours.axes[axis] != theirs.axes[axis]]
    changed = [f"{axis}={theirs.axes[axis]} (not {ours.axes[axis]})" for axis in differ]
    names = dict.fromkeys([*ours.overrides, *theirs.overrides])
    pairs = {name: (ours.overrides.get(name, "default"), theirs.overrides.get(name, "default")) for name in names}
    return changed + [f"{name}={new} (not {old})" for name, (old, new) in pairs.items() if old != new]
