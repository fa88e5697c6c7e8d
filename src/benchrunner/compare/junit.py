"""Findings → JUnit XML, which CI services show by the cell. Text from logs can break none of it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal
from xml.etree import ElementTree

from benchrunner.core.text import single_line, xml_text


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One cell."""

    name: str
    outcome: Literal["pass", "fail", "skip"]
    message: str = ""


def to_junit(suite: str, cases: Iterable[Case]) -> str:
    """A document of one suite."""
    listed = list(cases)
    counts = {
        "tests": len(listed),
        "failures": sum(case.outcome == "fail" for case in listed),
        "skipped": sum(case.outcome == "skip" for case in listed),
    }
    root = ElementTree.Element("testsuites")
    suite_element = ElementTree.SubElement(root, "testsuite", {"name": _text(suite), **_strings(counts)})
    for case in listed:
        element = ElementTree.SubElement(
            suite_element, "testcase", {"classname": _text(suite), "name": _text(case.name)}
        )
        if case.outcome != "pass":
            tag = "failure" if case.outcome == "fail" else "skipped"
            ElementTree.SubElement(element, tag, {"message": _text(case.message)})
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _strings(counts: dict[str, int]) -> dict[str, str]:
    return {name: str(count) for name, count in counts.items()}


def _text(text: str) -> str:
    return xml_text(single_line(text))
