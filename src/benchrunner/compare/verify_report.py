"""A verification as text, Markdown, JSON and JUnit."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from benchrunner.compare.verify import Verification
from benchrunner.core.junit import Case, to_junit
from benchrunner.core.text import escape_markdown, single_line

SCHEMA_VERSION = 1


def to_text(found: Verification) -> str:
    """For the terminal: a line a deviation, the verdict last."""
    lines = [*(one.line for one in found.deviations), *(f"note: {note}" for note in found.notes), found.headline]
    return "\n".join(map(single_line, lines))


def to_markdown(found: Verification) -> str:
    """For a summary."""
    parts = [f"# Verification: {escape_markdown(found.title)}", f"**{escape_markdown(found.headline)}**"]
    if found.deviations:
        rows = [(one.kind, one.slug, one.expected, one.found, one.reason) for one in found.deviations]
        lines = ["| what | cell | expected | found | reason |", "| --- | --- | --- | --- | --- |"]
        lines += ["| " + " | ".join(escape_markdown(text) or "–" for text in row) + " |" for row in rows]
        parts.append("\n".join(lines))
    parts += [f"- {escape_markdown(note)}" for note in found.notes]
    return "\n\n".join(parts) + "\n"


def to_document(found: Verification) -> dict[str, Any]:
    """For other programs."""
    return {
        "schema_version": SCHEMA_VERSION,
        "verdict": "PASS" if found.has_passed else "FAIL",
        "sweep": found.title,
        "lock": found.lock,
        "num_expected": found.num_expected,
        "num_as_expected": found.num_as_expected,
        "deviations": [asdict(one) for one in found.deviations],
        "notes": found.notes,
    }


def to_xml(found: Verification) -> str:
    """For CI: a case a cell."""
    return to_junit(f"bench verify {found.title}", _cases(found))


def _cases(found: Verification) -> Iterator[Case]:
    for one in found.deviations:
        yield Case(name=one.slug, outcome="fail", message=one.line)
    for slug in found.slugs:
        yield Case(name=slug, outcome="pass")
