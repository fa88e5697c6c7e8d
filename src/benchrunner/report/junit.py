"""Tables → JUnit XML, as continuous-integration servers read it: a test case a planned cell."""

from collections.abc import Sequence
from xml.etree import ElementTree

from benchrunner.core.text import plain, single_line, xml_text
from benchrunner.report.content import Tables
from benchrunner.report.results import Row, command_of

FAILURES = ("failed", "timeout", "invalid", "oom")
"""Statuses of a cell that was run and is no result; the others that are not ok count as skipped."""


def to_junit(tables: Tables) -> str:
    """One suite of the sweep; a case has the cell's seconds, and its reason and command where it is not ok."""
    rows = tables.rows
    suite = ElementTree.Element("testsuite", {"name": xml_text(tables.title), **_counts(rows)})
    for row in rows:
        _add_case(suite, row)
    root = ElementTree.Element("testsuites")
    root.append(suite)
    ElementTree.indent(root)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{ElementTree.tostring(root, encoding="unicode")}\n'


def _counts(rows: Sequence[Row]) -> dict[str, str]:
    failures = sum(row.status in FAILURES for row in rows)
    skipped = sum(row.status not in (*FAILURES, "ok") for row in rows)
    return {"tests": str(len(rows)), "failures": str(failures), "errors": "0", "skipped": str(skipped)}


def _add_case(suite: ElementTree.Element, row: Row) -> None:
    seconds = row.record.wall_s if row.record and row.record.wall_s is not None else 0.0
    names = {"classname": xml_text(row.sweep), "name": row.planned.cell.slug, "time": f"{seconds:.2f}"}
    case = ElementTree.SubElement(suite, "testcase", names)
    if row.status == "ok":
        return
    kind = "failure" if row.status in FAILURES else "skipped"
    message = xml_text(single_line(f"{row.reason_code}: {row.reason}"))
    result = ElementTree.SubElement(
        case, kind, {"message": message} | ({"type": row.status} if kind == "failure" else {})
    )
    result.text = xml_text(f"{plain(row.reason)}\n{plain(command_of(row))}")
