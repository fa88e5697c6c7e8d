"""One sweep as the gates see it: every planned cell with what became of it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from benchrunner.core.environment import Environment
from benchrunner.core.paths import SweepPaths
from benchrunner.core.record import Record
from benchrunner.plan.plan import Plan, PlannedCell
from benchrunner.store.environment_file import read_environment
from benchrunner.store.plan_file import load_plan
from benchrunner.store.records import read_records

UNSETTLED_CODES = frozenset({"skipped.interrupted", "skipped.budget", "skipped.brake"})
"""Codes that say nothing about the cell itself: it could have been run and was not."""

NO_RECORD = "skipped.interrupted"
"""The code of a cell that was to be run and has no record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredCell:
    """A planned cell and the record of every process that measured it, none before its first."""

    planned: PlannedCell
    records: Sequence[Record]

    @property
    def slug(self) -> str:
        """Its label."""
        return self.planned.cell.slug

    @property
    def verdict(self) -> Record | None:
        """The record that says what became of the cell: that of the first process that is not ok, else of the first."""
        return next((record for record in self.records if record.status != "ok"), next(iter(self.records), None))

    @property
    def status(self) -> str:
        """Of the verdict; without a record the plan's."""
        if self.verdict:
            return self.verdict.status
        return "skipped" if self.planned.verdict == "run" else self.planned.verdict

    @property
    def reason_code(self) -> str | None:
        """Of the verdict; None only when ok."""
        return self.verdict.reason_code if self.verdict else self.planned.reason_code or NO_RECORD

    @property
    def reason(self) -> str:
        """In a sentence; of an ok cell empty."""
        said = self.verdict.reason if self.verdict else self.planned.reason
        return said or ("" if self.status == "ok" else "no record: not run yet, or interrupted before it ended")

    @property
    def found(self) -> int | None:
        """The micro-batch that a search has found."""
        search = ((self.verdict.evidence if self.verdict else None) or {}).get("search")
        return search["micro_batch_size"] if search else None

    @property
    def is_settled(self) -> bool:
        """Whether the cell has a verdict of its own."""
        return self.reason_code not in UNSETTLED_CODES


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """A sweep as read from disk."""

    paths: SweepPaths
    plan: Plan
    cells: dict[str, MeasuredCell]
    """Cell id → cell, in the order of the plan."""
    environment: Environment = field(default_factory=Environment)
    notes: Sequence[str] = ()
    """Files that could not be read."""

    @property
    def matrix(self) -> dict[str, MeasuredCell]:
        """The cells that every run of the sweep has: not those that its searches tried."""
        return {cell_id: cell for cell_id, cell in self.cells.items() if not cell.planned.probe_of}

    @property
    def title(self) -> str:
        """`<sweep>/<stamp>`."""
        return f"{self.plan.sweep_name}/{self.paths.root.resolve().name}"


def read_side(paths: SweepPaths) -> Side:
    """A sweep with every record that can be read.

    Raises:
        SweepDirError: no plan, or a damaged one.
    """
    plan = load_plan(paths.root)
    processes = [replace(one, repeat=number) for one in plan.cells for number in paths.processes(one.cell.slug)]
    records, problems = read_records(processes, paths)
    environment, problem = read_environment(paths)
    by_slug = _records_by_slug(records.values())
    measured = (MeasuredCell(planned=one, records=by_slug.get(one.cell.slug, [])) for one in plan.cells)
    return Side(
        paths=paths,
        plan=plan,
        cells={one.planned.cell.cell_id: one for one in measured},
        environment=environment or Environment(),
        notes=[*problems, *([f"{paths.environment.name} is damaged: {problem}"] if problem else [])],
    )


def _records_by_slug(records: Iterable[Record]) -> dict[str, list[Record]]:
    """Each cell's in the order of its processes."""
    found: dict[str, list[Record]] = {}
    for record in records:
        found.setdefault(record.slug, []).append(record)
    return found
