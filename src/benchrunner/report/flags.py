"""What the flags of a cell mean, with what its record knows of each: a reader of a number sees why it has a mark."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from benchrunner.core.text import single_line
from benchrunner.report import formatting
from benchrunner.report.row import Row

MOST_REASONS = 3
"""Of graph breaks, the most frequent."""


def explained(row: Row) -> list[str]:
    """A sentence a flag: `graph_breaks: …`; a flag that is not known here stands alone."""
    return [_sentence(flag, row) for flag in row.flags]


def _sentence(flag: str, row: Row) -> str:
    name, _, of = flag.partition(":")
    meaning = MEANINGS.get(name)
    return single_line(flag if meaning is None else f"{flag}: {meaning(of, row)}")


def _unstable(_: str, row: Row) -> str:
    low, middle = row.metrics.get("step_time_p10_s"), row.metrics.get("step_time_median_s")
    high = row.metrics.get("step_time_p90_s")
    if not (low and middle and high):
        return "its steps differ in time by more than 5 %, or drift"
    return (
        f"eight of ten steps took {low * 1e3:.4g} to {high * 1e3:.4g} ms, {100 * (high - low) / middle:.2g} % of the "
        "median; more than 5 %, or a drift of half as much from the first third to the last, sets the flag"
    )


def _graph_breaks(_: str, row: Row) -> str:
    ranks = row.record.ranks if row.record else []
    reasons = Counter(ranks[0].get("compile", {}).get("graph_break_reasons", {}) if ranks else {})
    most = "; ".join(f"{reason} ({count} ×)" for reason, count in reasons.most_common(MOST_REASONS))
    count = row.metrics.get("num_graph_breaks")
    return f"{count or 'some'} places at which the compiler stopped and eager code runs{': ' if most else ''}{most}"


def _recompiled(_: str, row: Row) -> str:
    return f"{row.metrics.get('num_recompiles') or 'some'} frames were compiled while it was measured"


def _retries(_: str, row: Row) -> str:
    count = row.metrics.get("num_alloc_retries")
    return (
        f"the allocator freed its cache and tried again {count or 'some'} times: it fits only so, and is slower for it"
    )


def _throttled(_: str, row: Row) -> str:
    ranks = row.record.ranks if row.record else []
    causes = sorted({cause for rank in ranks for cause in rank.get("clock_event_reasons", ())})
    return f"the clock was lowered while it was measured ({', '.join(causes) or 'no cause known'})"


def _unverified(check: str, row: Row) -> str:
    found: Mapping[str, Any] = (row.record.checks if row.record else {}).get(check, {})
    return f"the check that is to decide here did not: {found.get('note') or _not_asked(row)}"


def _not_asked(row: Row) -> str:
    ranks = ((row.record.evidence if row.record else None) or {}).get("ranks", [])
    ended = [rank for rank in ranks if rank.get("phase") == "check" and rank.get("error")]
    if ended:
        return f"{ended[0]['error']} ended the checks of rank {ended[0]['rank']} before it"
    return "it was not asked"


def _tight(_: str, row: Row) -> str:
    predicted = (row.record.predicted if row.record else None) or {}
    least = predicted.get("least_memory_bytes")
    if not least:
        return "its predicted peak is near the device's memory or above it"
    return (
        f"the {formatting.gib(least)} GiB that its allocator cannot do without are near the device's memory or above it"
    )


MEANINGS: dict[str, Callable[[str, Row], str]] = {
    "unstable": _unstable,
    "graph_breaks": _graph_breaks,
    "recompiled": _recompiled,
    "alloc_retries": _retries,
    "throttled": _throttled,
    "unverified": _unverified,
    "memory_tight": _tight,
    "foreign_process": lambda _, row: "another process used its devices",
    "unjudged": lambda _, row: "no tolerance was measured for its precision yet: its errors are not judged",
    "mixed_environment": lambda _, row: "measured with other versions or devices than the rest of the sweep",
    "inferred": lambda _, row: "not run: a smaller one of the kind had run out of memory",
    "oom_audit": lambda _, row: "predicted not to fit, and run all the same to see whether that is right",
    "probe": lambda rule, row: (
        f"run although the rule {rule} says that it cannot work, to find out whether it still holds"
    ),
    "fault": lambda fault, row: f"not a measurement: it was made to do something else (BENCH_FAULT={fault})",
}
"""Flag, up to its colon → what it means, from what stands behind the colon and the row."""
