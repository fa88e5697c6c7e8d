"""What a gate says: printed as text or JSON, written as Markdown and JUnit, added to the summary of a GitHub job."""

import json
import os
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchrunner.cli.command import JSON, Flag
from benchrunner.core.errors import UsageError
from benchrunner.core.files import write_text

EXIT_GATE = 3
"""A gate says no."""

SUMMARY = "GITHUB_STEP_SUMMARY"
"""Names the file that a GitHub job shows as its summary."""

GATE_FLAGS = (
    JSON,
    Flag(names=("--markdown",), metavar="FILE", help="write Markdown too"),
    Flag(names=("--junit",), metavar="FILE", help="write JUnit XML, for CI"),
)


def show_findings(
    arguments: Namespace, *, text: str, markdown: str, document: dict[str, Any], junit: Callable[[], str]
) -> None:
    """Print the findings, write what the flags ask for, and add to the summary of a GitHub job where there is one.

    Raises:
        UsageError: a file cannot be written.
    """
    print(json.dumps(document, indent=1, allow_nan=False) if arguments.json else text)
    if arguments.markdown is not None:
        write_file(Path(arguments.markdown), markdown)
    if arguments.junit is not None:
        write_file(Path(arguments.junit), junit())
    if summary := os.environ.get(SUMMARY):
        _append(Path(summary), markdown)


def write_file(path: Path, text: str) -> None:
    """Write a file that a flag names, and its folder.

    Raises:
        UsageError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text)
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror or error}") from error


def _append(path: Path, text: str) -> None:
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(f"{text}\n")
    except OSError as error:
        raise UsageError(f"{SUMMARY}={path}: cannot be written: {error.strerror or error}") from error
