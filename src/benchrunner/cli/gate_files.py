"""What a gate says: printed as text or JSON, written as Markdown and JUnit, added to the summary of a GitHub job."""

import json
import os
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchrunner.cli.command import JSON, JUNIT, Flag
from benchrunner.core.errors import UsageError
from benchrunner.core.files import open_output, write_output

SUMMARY = "GITHUB_STEP_SUMMARY"
"""Names the file that a GitHub job shows as its summary."""

GATE_FLAGS = (
    JSON,
    Flag(names=("--markdown",), metavar="FILE", help="write Markdown too"),
    JUNIT,
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
    try:
        add_to_job_summary(f"{markdown}\n")
    except OSError as error:
        raise UsageError(f"{SUMMARY}={error.filename}: cannot be written: {error.strerror or error}") from error


def add_to_job_summary(text: str) -> None:
    """Add Markdown to the summary of a GitHub job, where there is one.

    Raises:
        OSError: its file cannot be written.
    """
    if target := os.environ.get(SUMMARY):
        with open_output(Path(target), append=True) as file:
            file.write(text)


def write_file(path: Path, text: str) -> None:
    """Write a file that a flag names, and its folder.

    Raises:
        UsageError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_output(path, text)
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror or error}") from error
