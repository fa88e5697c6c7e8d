"""A comparison as text, Markdown, JSON and JUnit."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from benchrunner.compare.gate import CellResult, Comparison
from benchrunner.core.junit import Case, to_junit
from benchrunner.core.text import escape_markdown, single_line

SCHEMA_VERSION = 1

ORDER = {"FAIL": 0, "INCONCLUSIVE": 1, "PASS": 2, None: 3}
"""What a reader looks for comes first."""

UNKNOWN = "–"


def to_text(found: Comparison) -> str:
    """For the terminal: the cells, what stands behind them, and the verdict as the last line."""
    rows = [_headings(found), *(_row(cell, found.options.metric.scale) for cell in _ordered(found))]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    for cell in _ordered(found):
        lines += [f"{cell.pair.slug}: {cell.reason}"] if cell.verdict != "PASS" or cell.change == "faster" else []
        lines += [f"    {one}" for one in cell.attribution]
    lines += [f"suspect: {one}" for one in found.suspects]
    lines += [*_sentences(found), headline(found)]
    return "\n".join("".join(one if one.isprintable() else " " for one in line) for line in lines)


def headline(found: Comparison) -> str:
    """`FAIL: 1 FAIL, 19 PASS of 20 cells, time of new … against base …`."""
    counts = Counter(cell.verdict or "not tested" for cell in found.cells)
    listed = ", ".join(
        f"{counts[name]} {name}" for name in ("FAIL", "INCONCLUSIVE", "PASS", "not tested") if counts[name]
    )
    titles = f"{found.pairing.new.title} against {found.pairing.base.title}"
    return f"{found.verdict}: {listed} of {len(found.cells)} cells, {found.options.metric.name} of {titles}"


def _ordered(found: Comparison) -> list[CellResult]:
    return sorted(found.cells, key=lambda cell: (ORDER[cell.verdict], -(cell.effect.log_ratio if cell.effect else 0.0)))


def _headings(found: Comparison) -> list[str]:
    unit = found.options.metric.heading
    return ["verdict", "cell", f"base {unit}", f"new {unit}", "change", "interval", "processes"]


def _row(cell: CellResult, scale: float) -> list[str]:
    pair = cell.pair
    return [
        cell.verdict or UNKNOWN,
        single_line(pair.slug),
        _number(cell.base_value, scale),
        _number(cell.new_value, scale),
        UNKNOWN if cell.effect is None else percent(cell.effect.log_ratio),
        _interval(cell),
        f"{cell.num_pairs} pairs" if cell.num_pairs else f"{len(pair.base.records)} + {len(pair.new.records)}",
    ]


def _number(value: float | None, scale: float) -> str:
    return UNKNOWN if value is None else f"{value * scale:,.4g}"


def _interval(cell: CellResult) -> str:
    if cell.effect is None:
        return UNKNOWN
    margin = cell.effect.margin(cell.alpha)
    return f"{percent(cell.effect.log_ratio - margin)} to {percent(cell.effect.log_ratio + margin)}"


def percent(log_ratio: float) -> str:
    """`+5.1 %`."""
    return f"{_share(log_ratio) * 100:+.1f} %"


def _sentences(found: Comparison) -> Iterator[str]:
    """What a reader must know to believe the verdict."""
    yield from (f"vanished: {cell.slug} (was {cell.status})" for cell in found.pairing.vanished)
    yield from (f"appeared: {cell.slug} (is {cell.status})" for cell in found.pairing.appeared)
    yield from (f"note: {note}" for note in (*found.pairing.base.notes, *found.pairing.new.notes, *found.notes))
    yield _power(found)
    yield _alarms(found)


def _power(found: Comparison) -> str:
    least = f"minimum effect {found.options.min_effect * 100:.3g} %, two-sided, corrected for all tested cells"
    if found.detectable is None or found.noise is None:
        return f"Minimum detectable effect: unknown, no cell was measured in several processes; {least}."
    spread = f"processes of a cell vary by {found.noise.spread * 100:.2g} %"
    return f"Minimum detectable effect: {found.detectable * 100:.1f} % of a typical cell ({spread}); {least}."


def _alarms(found: Comparison) -> str:
    if not found.num_alarm_tests:
        return "False alarms between halves of the same side: not measured, no cell was measured in several processes."
    share = found.num_alarms / found.num_alarm_tests
    counted = f"{found.num_alarms} of {found.num_alarm_tests} ({share * 100:.1f} %)"
    return f"False alarms between halves of the same side: {counted}."


# --- files ----------------------------------------------------------------------------------------------------------


def to_markdown(found: Comparison) -> str:
    """For a summary."""
    scale = found.options.metric.scale
    rows = [_headings(found), *([*_row(cell, scale), _why(cell)] for cell in _ordered(found))]
    rows[0] = [*rows[0], "why"]
    lines = [_markdown_row(row) for row in rows]
    lines.insert(1, "| --- " * len(rows[0]) + "|")
    title = (
        f"# Comparison: {escape_markdown(found.pairing.new.title)} against {escape_markdown(found.pairing.base.title)}"
    )
    parts = [title, f"**{escape_markdown(headline(found))}**", "\n".join(lines)]
    parts += _list("Suspects", found.suspects) + _list("How sure this is", list(_sentences(found)))
    return "\n\n".join(parts) + "\n"


def _why(cell: CellResult) -> str:
    return "; ".join([cell.reason, *cell.attribution])


def _markdown_row(row: Sequence[str]) -> str:
    return "| " + " | ".join(escape_markdown(text) or UNKNOWN for text in row) + " |"


def _list(title: str, lines: Sequence[str]) -> list[str]:
    return [f"## {title}", "\n".join(f"- {escape_markdown(line)}" for line in lines)] if lines else []


def to_document(found: Comparison) -> dict[str, Any]:
    """For other programs; effects are shares: 0.05 is 5 % more than the base."""
    return {
        "schema_version": SCHEMA_VERSION,
        "verdict": found.verdict,
        "base": found.pairing.base.title,
        "new": found.pairing.new.title,
        "metric": found.options.metric.name,
        "min_effect": found.options.min_effect,
        "detectable_effect": found.detectable,
        "process_spread": found.noise.spread if found.noise else None,
        "num_false_alarms": found.num_alarms,
        "num_false_alarm_tests": found.num_alarm_tests,
        "cells": [_entry(cell) for cell in found.cells],
        "vanished": [{"cell_id": one.planned.cell.cell_id, "slug": one.slug} for one in found.pairing.vanished],
        "appeared": [{"cell_id": one.planned.cell.cell_id, "slug": one.slug} for one in found.pairing.appeared],
        "suspects": list(found.suspects),
        "notes": [*found.pairing.base.notes, *found.pairing.new.notes, *found.notes],
    }


def _entry(cell: CellResult) -> dict[str, Any]:
    effect = cell.effect
    margin = effect.margin(cell.alpha) if effect else 0.0
    return {
        "cell_id": cell.pair.cell_id,
        "slug": cell.pair.slug,
        "verdict": cell.verdict,
        "change": cell.change,
        "reason": cell.reason,
        "base_status": cell.pair.base.status,
        "new_status": cell.pair.new.status,
        "base_value": cell.base_value,
        "new_value": cell.new_value,
        "effect": _share(effect.log_ratio) if effect else None,
        "effect_low": _share(effect.log_ratio - margin) if effect else None,
        "effect_high": _share(effect.log_ratio + margin) if effect else None,
        "num_base_processes": len(cell.pair.base.records),
        "num_new_processes": len(cell.pair.new.records),
        "num_pairs": cell.num_pairs,
        "attribution": list(cell.attribution),
    }


def _share(log_ratio: float) -> float:
    """A finite number, whatever was measured."""
    return math.expm1(min(log_ratio, 20.0))


def to_xml(found: Comparison) -> str:
    """For CI: a case a cell; inconclusive ones are skipped, so that they are seen and fail nothing."""
    return to_junit(f"bench compare {found.options.metric.name}", (_case(cell) for cell in found.cells))


def _case(cell: CellResult) -> Case:
    change = f"{percent(cell.effect.log_ratio)} ({_interval(cell)}): " if cell.effect else ""
    message = f"{cell.verdict or 'not tested'}: {change}{_why(cell)}"
    outcomes = {"PASS": "pass", "FAIL": "fail"}
    outcome: Any = outcomes.get(cell.verdict or "", "skip")
    return Case(name=cell.pair.slug, outcome=outcome, message=message)
