"""The summary of a sweep on the page of its GitHub job, as Markdown."""

from benchrunner.report import formatting
from benchrunner.report.content import Tables
from benchrunner.report.markdown import escape_markdown, to_markdown
from benchrunner.report.page import sentences

MOST_BYTES = 900_000
"""GitHub refuses a summary above 1 MiB."""


def job_summary(tables: Tables) -> str:
    """Title, banner, counts, three sentences and the tables; without the tables where they are too large."""
    head = [f"## {escape_markdown(tables.title)}", *(f"**{escape_markdown(text)}**" for text in tables.banner)]
    head += [escape_markdown(text) for text in tables.summary]
    head.append("\n".join(f"- {title}: {escape_markdown(' '.join(texts))}" for title, texts in sentences(tables)))
    frames = {
        "Measured": formatting.measured_table(tables.results),
        "Predicted": formatting.predicted_table(tables.results),
        "Not measured": formatting.unmeasured_table(tables.results),
    }
    body = [f"### {title}\n\n{to_markdown(frame)}" for title, frame in frames.items() if len(frame)]
    whole = "\n\n".join([*head, *body]) + "\n"
    return whole if len(whole.encode()) <= MOST_BYTES else "\n\n".join(head) + "\n"
