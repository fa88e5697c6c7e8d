"""Verdicts → JUnit XML, which continuous-integration services show case by case. No text can break any of it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal
from xml.etree import ElementTree

from benchrunner.core.text import plain, single_line, xml_text

Outcome = Literal["pass", "fail", "skip"]

TAGS: dict[Outcome, str] = {"fail": "failure", "skip": "skipped"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One cell, or one thing that is held against it."""

    name: str
    outcome: Outcome
    message: str = ""
    kind: str | None = None
    """Of a failure: its status."""
    details: tuple[str, ...] = ()
    """Lines."""
    suite: str | None = None
    """What the case is of, where that is not the whole document's title."""
    time_s: float | None = None


def to_junit(title: str, cases: Iterable[Case]) -> str:
    """A document of one suite."""
    listed = list(cases)
    root = ElementTree.Element("testsuites")
    suite = ElementTree.SubElement(root, "testsuite", {"name": _text(title), **_counts(listed)})
    for case in listed:
        _add(suite, case, title)
    ElementTree.indent(root)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{ElementTree.tostring(root, encoding="unicode")}\n'


def _counts(cases: list[Case]) -> dict[str, str]:
    failures, skipped = (sum(case.outcome == outcome for case in cases) for outcome in ("fail", "skip"))
    return {"tests": str(len(cases)), "failures": str(failures), "errors": "0", "skipped": str(skipped)}


def _add(suite: ElementTree.Element, case: Case, title: str) -> None:
    time = {} if case.time_s is None else {"time": f"{case.time_s:.2f}"}
    names = {"classname": _text(case.suite if case.suite is not None else title), "name": _text(case.name)}
    element = ElementTree.SubElement(suite, "testcase", names | time)
    if case.outcome == "pass":
        return
    kind = {"type": _text(case.kind)} if case.kind is not None else {}
    result = ElementTree.SubElement(element, TAGS[case.outcome], {"message": _text(case.message)} | kind)
    result.text = xml_text("\n".join(map(plain, case.details))) if case.details else None


def _text(text: str) -> str:
    return xml_text(single_line(text))
