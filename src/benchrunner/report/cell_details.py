"""What `report.html` shows of one cell when it is opened, as plain data, and all of it packed for a page."""

import base64
import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from benchrunner.core.record import PHASES, Record
from benchrunner.core.text import indented_line, single_line
from benchrunner.core.units import GIB
from benchrunner.report.columns import command_of
from benchrunner.report.flags import explained
from benchrunner.report.row import Row

MOST_SAMPLES = 200
MOST_CELLS_IN_DETAIL = 2000
"""Samples and the sentences of flags are what compresses least; of a larger sweep `bench show` has them."""

MOST_LINES = 20
LONGEST_LINE = 400


def packed_details(
    rows: Sequence[Row], roots: Mapping[str, str], expected: Mapping[str, Sequence[str]] | None = None
) -> str:
    """The details of every row as JSON, deflated, in base64: a page of 10,000 cells has no room for them as text.

    Args:
        rows: in the order of the page's table.
        roots: sweep → its directory as seen from the page; a sweep that is not named is where the page is.
        expected: cell → what the sweep expects of it, in sentences.
    """
    in_detail, said = len(rows) <= MOST_CELLS_IN_DETAIL, expected or {}
    details = [
        details_of(row, roots.get(row.sweep, ""), in_detail, said.get(row.planned.cell.cell_id, ())) for row in rows
    ]
    text = json.dumps(details, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return base64.b64encode(zlib.compress(text.encode("utf-8", "replace"), 9)).decode("ascii")


def details_of(row: Row, root: str, in_detail: bool, expected: Sequence[str] = ()) -> dict[str, Any]:
    """One cell: verdict, what is expected, checks, samples, phases, files, command; what is unknown is left out.

    Of its files there is what the page makes links of: `folder` where it has a record, and the last `attempt` in it.
    """
    record = row.record
    known = {
        "slug": row.planned.cell.slug,
        "code": row.reason_code if row.status != "ok" else None,
        "reason": single_line(row.reason) if row.status != "ok" or row.planned.cell.search else None,
        "flags": explained(row) if in_detail else row.flags,
        "expected": [single_line(sentence) for sentence in expected],
        "command": command_of(row),
        **_of_prediction(row.planned.predicted or {}),
        **(_of_record(row, record, root, in_detail) if record else {}),
    }
    return {key: value for key, value in known.items() if value not in (None, [], {})}


def _of_prediction(predicted: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "predicted_gib": _gib(predicted.get("peak_memory_bytes")),
        "predicted_ms": _ms(predicted.get("step_time_s")),
        "at_least": True if predicted.get("bound") == "lower" else None,
    }


def _of_record(row: Row, record: Record, root: str, in_detail: bool) -> dict[str, Any]:
    return {
        "folder": f"{root}cells/",
        "attempt": record.attempt,
        "checks": [[name, *_check(check)] for name, check in record.checks.items()],
        "phases": {phase: float(f"{record.phases_s[phase]:.3g}") for phase in PHASES if phase in record.phases_s},
        "wall_s": None if record.wall_s is None else round(record.wall_s, 1),
        "measured_gib": _measured_gib(row),
        "measured_ms": _ms(row.metrics.get("step_time_median_s")),
        "samples_ms": _samples_ms(record) if in_detail and row.metrics else None,
        "evidence": _evidence(record),
        "earlier": [f"{one['attempt']}: {one['status']} {one['reason_code']}" for one in record.earlier_attempts],
        "started": record.started_at,
    }  # fmt: skip


def _measured_gib(row: Row) -> float | None:
    """What the predicted peak is held against; None on CPU, whose peak is the whole process's."""
    is_process = row.metrics.get("memory_scope") == "process"
    return None if is_process else _gib(row.metrics.get("peak_memory_allocated_bytes"))


def _check(check: Mapping[str, Any]) -> list[Any]:
    texts = [single_line(str(check[name])) if check.get(name) is not None else "" for name in ("expected", "observed")]
    return [check["ok"], *texts, single_line(str(check.get("note") or ""))]


def _samples_ms(record: Record) -> list[float]:
    """The steps of the rank that took longest in all."""
    samples = [rank.get("step_times_s") or [] for rank in record.ranks]
    slowest = max(samples, key=sum, default=[])
    return [float(f"{value * 1e3:.4g}") for value in slowest[:MOST_SAMPLES]]


def _evidence(record: Record) -> list[str]:
    """The lines that the verdict stands on."""
    grounds = record.evidence or {}
    place = [text for text in (grounds.get("file"), grounds.get("rule"), grounds.get("evidence")) if text]
    lines = [*place, *(grounds.get("lines") or [])][-MOST_LINES:]
    return [indented_line(line)[:LONGEST_LINE] for line in lines]


def _gib(num_bytes: float | None) -> float | None:
    return None if num_bytes is None else round(num_bytes / GIB, 2)


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else float(f"{seconds * 1e3:.4g}")
