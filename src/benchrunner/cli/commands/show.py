"""`bench show DIR CELL`: everything about one cell, and the command that repeats it."""

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from benchrunner.cli.command import EXIT_OK, Command, Example, Flag, Operands
from benchrunner.cli.directories import sweep_directory
from benchrunner.cli.isolation import isolation_lines
from benchrunner.core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchrunner.report.row import Row

ISOLATE = Flag(
    names=("--isolate",),
    help="run the few cells here that tell which of its values make the cell fail, and name them",
)

MOST_NAMED = 5


def show(arguments: Namespace) -> int:
    """Print one cell of a sweep; without a cell, the only one, or the first that broke."""
    from benchrunner.core.paths import SweepPaths
    from benchrunner.report.cell_text import cell_sections
    from benchrunner.report.expectations import expected_of, judge_expectations
    from benchrunner.report.terminal import print_sections
    from benchrunner.report.write import read_sweep

    directory, cell = _operands(arguments.operands)
    sweep = read_sweep(SweepPaths(directory))
    row = find_cell(sweep.rows, cell)
    expected = expected_of(judge_expectations(sweep.rows, sweep.plan.hardware)).get(row.planned.cell.cell_id, ())
    sections = cell_sections(row, sweep.rows, sweep.paths, expected)
    if arguments.isolate:
        sections.append((f"What it takes to be {row.reason_code}", isolation_lines(row, sweep.rows, sweep.paths)))
    print_sections(sections)
    return EXIT_OK


def _operands(given: "Sequence[str]") -> tuple[Path, str | None]:
    if not 1 <= len(given) <= 2:
        raise UsageError("show needs a sweep and a cell, e.g. bench show outputs/latest 2fd597")
    return sweep_directory("show", given[:1]), given[1] if len(given) == 2 else None


def find_cell(rows: "Sequence[Row]", wanted: str | None) -> "Row":
    """The row whose name or id holds `wanted`; None: the first of those that broke worst, else the first.

    Raises:
        UsageError: no cell is called so, or several are.
    """
    if wanted is None:
        return _worst(rows)
    names = [(row, row.planned.cell.slug, row.planned.cell.cell_id) for row in rows]
    exact = [row for row, slug, cell_id in names if wanted in (slug, cell_id, slug[-6:])]
    found = exact or [row for row, slug, cell_id in names if wanted in slug or cell_id.startswith(wanted)]
    if len(found) == 1:
        return found[0]
    shown = ", ".join(row.planned.cell.slug for row in (found or rows)[:MOST_NAMED])
    what = f"{len(found)} cells match" if found else "no cell matches"
    raise UsageError(f"{what} {wanted!r}; {'name one of' if found else 'cells are'} {shown}, …")


def _worst(rows: "Sequence[Row]") -> "Row":
    """A failure before what a rule forbids; what was skipped did not break."""
    from benchrunner.report.conclusions import SEVERITY

    broke = [row for row in rows if row.status not in ("ok", "skipped")]
    return min(broke, key=lambda row: SEVERITY.index(row.status), default=rows[0])


COMMAND = Command(
    run=show,
    summary="everything about one cell: reason, evidence, checks, phases, logs, the command that repeats it",
    details="CELL is its id or a part of its name; without it, the first that failed, else that broke in another way.",
    operands=Operands(name="operands", usage="DIR [CELL]"),
    flags=(ISOLATE,),
    examples=(
        Example(line="bench show outputs/latest 2fd597", meaning="why a cell is what it is"),
        Example(line="bench show outputs/latest 2fd597 --isolate", meaning="which of its values it takes to fail so"),
    ),
)
