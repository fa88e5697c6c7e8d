"""The summary of a sweep on the page of its job: Markdown, where GITHUB_STEP_SUMMARY names a file for it."""

import os
from pathlib import Path

from benchrunner.report import formatting
from benchrunner.report.content import Tables
from benchrunner.report.markdown import escape_markdown, to_markdown
from benchrunner.report.page import sentences

VARIABLE = "GITHUB_STEP_SUMMARY"

MOST_BYTES = 900_000
"""GitHub refuses a summary above 1 MiB."""


def write_job_summary(tables: Tables) -> None:
    """Append the summary to the file that the variable names, if there is one.

    Raises:
        OSError: the file cannot be written.
    """
    if target := os.environ.get(VARIABLE):
        with Path(target).open("a", encoding="utf-8") as file:
            file.write(job_summary(tables))


def job_summary(tables: Tables) -> str:
    """Title, banner, counts, three sentences and the tables; without the tables where they are too large."""
    head = [f"## {escape_markdown(tables.title)}", *(f"**{escape_markdown(text)}**" for text in tables.banner)]
    head += [escape_markdown(text) for text in tables.summary]
    head.append("\n".join(f"- {title}: {escape_markdown(text)}" for title, text in sentences(tables)))
    frames = {
        "Measured": formatting.measured_table(tables.results),
        "Not measured": formatting.unmeasured_table(tables.results),
    }
    body = [f"### {title}\n\n{to_markdown(frame)}" for title, frame in frames.items() if len(frame)]
    whole = "\n\n".join([*head, *body]) + "\n"
    return whole if len(whole.encode()) <= MOST_BYTES else "\n\n".join(head) + "\n"
