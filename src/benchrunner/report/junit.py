"""Tables → JUnit XML: a test case a planned cell."""

from benchrunner.core import junit
from benchrunner.core.junit import Case, Outcome
from benchrunner.report.columns import command_of
from benchrunner.report.content import Tables
from benchrunner.report.row import Row

FAILURES = ("failed", "timeout", "invalid", "oom")
"""Statuses of a cell that was run and is no result; the others that are not ok count as skipped."""


def to_junit(tables: Tables) -> str:
    """One suite of the sweep; a case has the cell's seconds, and its reason and command where it is not ok."""
    return junit.to_junit(tables.title, map(_case, tables.rows))


def _case(row: Row) -> Case:
    outcome: Outcome = "pass" if row.status == "ok" else "fail" if row.status in FAILURES else "skip"
    return Case(
        name=row.planned.cell.slug,
        outcome=outcome,
        message=f"{row.reason_code}: {row.reason}",
        kind=row.status if outcome == "fail" else None,
        details=(row.reason, command_of(row)),
        suite=row.sweep,
        time_s=(row.record.wall_s if row.record else None) or 0.0,
    )
