"""Many sweeps → a metric over time, cell by cell, with the points at which it changed and the commits around them."""

import csv
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from statistics import fmean

from benchrunner.compare.distributions import t_quantile
from benchrunner.compare.effect import ALPHA
from benchrunner.compare.gate import MIN_EFFECT
from benchrunner.compare.metric import Metric
from benchrunner.compare.noise import LEAST_VARIANCE
from benchrunner.compare.side import Side

LEAST_SWEEPS = 3
"""Of which a cell has a number, for its history to be worth a line."""

LEAST_SEGMENT = 2
"""Sweeps before and after a change: one alone may be an outlier."""

BARS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """What one sweep measured of a cell."""

    sweep: str
    created_at: str
    commit: str | None
    log_value: float
    """Of the geometric mean of its processes."""
    num_processes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Between two sweeps the level of a cell changed."""

    index: int
    """The first point of the new level."""
    log_ratio: float
    """New level ÷ old level."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Track:
    """The history of one cell."""

    cell_id: str
    slug: str
    points: list[Point]
    """Oldest first."""
    changes: list[Change]


def make_tracks(sides: Sequence[Side], metric: Metric, min_effect: float = MIN_EFFECT) -> list[Track]:
    """The history of every cell that enough sweeps on the same device have measured."""
    points: dict[tuple[str, str], list[Point]] = {}
    slugs: dict[str, str] = {}
    for side in sorted(sides, key=lambda side: datetime.fromisoformat(side.plan.created_at)):
        for cell_id, point in _points(side, metric):
            points.setdefault((cell_id, side.plan.hardware.device_name), []).append(point)
            slugs[cell_id] = side.cells[cell_id].slug
    tracks = {key: found for key, found in points.items() if len(found) >= LEAST_SWEEPS}
    alpha = ALPHA / max(len(tracks), 1)
    return [
        Track(cell_id=cell_id, slug=slugs[cell_id], points=found, changes=_changes(found, min_effect, alpha))
        for (cell_id, _), found in tracks.items()
    ]


def _points(side: Side, metric: Metric) -> Iterator[tuple[str, Point]]:
    for cell_id, cell in side.cells.items():
        values = [value for record in cell.records if (value := metric.value(record)) is not None]
        if values:
            yield (
                cell_id,
                Point(
                    sweep=side.title,
                    created_at=side.plan.created_at,
                    commit=side.environment.get("git", {}).get("commit"),
                    log_value=fmean(map(math.log, values)),
                    num_processes=len(values),
                ),
            )


def _changes(points: Sequence[Point], min_effect: float, alpha: float) -> list[Change]:
    values = [point.log_value for point in points]
    borders = [0, *change_points(values, min_effect, alpha), len(values)]
    levels = [fmean(values[start:end]) for start, end in pairwise(borders)]
    return [
        Change(index=index, log_ratio=after - before)
        for index, before, after in zip(borders[1:-1], levels, levels[1:], strict=False)
    ]


def change_points(values: Sequence[float], min_effect: float, alpha: float) -> list[int]:
    """Where the level of a series of logarithms changes, by binary segmentation: the split with the largest t is a
    change if t is beyond its quantile, corrected for all splits, and the levels differ by the minimum effect; then both
    parts are searched.
    """
    found = _best_split(values, min_effect, alpha)
    if found is None:
        return []
    before = change_points(values[:found], min_effect, alpha)
    after = change_points(values[found:], min_effect, alpha)
    return [*before, found, *(found + index for index in after)]


def _best_split(values: Sequence[float], min_effect: float, alpha: float) -> int | None:
    splits = range(LEAST_SEGMENT, len(values) - LEAST_SEGMENT + 1)
    if not splits:
        return None
    index = max(splits, key=lambda split: abs(_t(values, split)))
    critical = t_quantile(1 - alpha / (2 * len(splits)), len(values) - 2)
    shift = fmean(values[index:]) - fmean(values[:index])
    is_change = abs(_t(values, index)) > critical and abs(shift) >= math.log1p(min_effect)
    return index if is_change else None


def _t(values: Sequence[float], split: int) -> float:
    before, after = values[:split], values[split:]
    squares = sum((value - fmean(part)) ** 2 for part in (before, after) for value in part)
    variance = max(squares / (len(values) - 2), LEAST_VARIANCE)
    return (fmean(after) - fmean(before)) / math.sqrt(variance * (1 / len(before) + 1 / len(after)))


# --- shown ----------------------------------------------------------------------------------------------------------


def history_text(tracks: Sequence[Track], metric: Metric) -> str:
    """For the terminal: of each cell its course, its first and last number, and its changes."""
    lines = [f"Over time ({metric.heading}; a change is shown with the commits around it)"]
    for track in sorted(tracks, key=lambda track: not track.changes):
        first, last = (math.exp(point.log_value) * metric.scale for point in (track.points[0], track.points[-1]))
        lines.append(f"{sparkline(track.points)}  {first:,.4g} → {last:,.4g}  {track.slug}")
        lines += [f"    {change_line(track, change)}" for change in track.changes]
    return "\n".join(lines)


def sparkline(points: Sequence[Point]) -> str:
    """A bar a sweep, between the lowest and the highest."""
    values = [point.log_value for point in points]
    low, span = min(values), max(values) - min(values)
    scale = (len(BARS) - 1) / max(span, math.log1p(MIN_EFFECT))
    return "".join(BARS[round((value - low) * scale)] for value in values)


def change_line(track: Track, change: Change) -> str:
    """`+5.1 % from 2026-11-12T…, commit abc1234..def5678, sweep …`."""
    before, after = track.points[change.index - 1], track.points[change.index]
    commits = f"{(before.commit or 'unknown')[:10]}..{(after.commit or 'unknown')[:10]}"
    return (
        f"{math.expm1(change.log_ratio) * 100:+.1f} % from {after.created_at}, commits {commits}, sweep {after.sweep}"
    )


def history_csv(tracks: Sequence[Track], metric: Metric) -> str:
    """A line a cell and sweep."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["cell_id", "slug", "sweep", "created_at", "commit", "metric", "value", "num_processes", "change"])
    for track in tracks:
        shifts = {change.index: math.expm1(change.log_ratio) for change in track.changes}
        for index, point in enumerate(track.points):
            value, change = math.exp(point.log_value), shifts.get(index, "")
            where = (track.cell_id, track.slug, point.sweep, point.created_at, point.commit or "unknown")
            writer.writerow([*where, metric.name, value, point.num_processes, change])
    return out.getvalue()
