"""The pictures of `report.html`: SVG made here, so that they are there without JavaScript and cost a few kilobytes.

Libraries that inline from a PyPI package were measured: plotly.min.js of plotly 7.1 has 4.8 MB, bokeh.min.js of bokeh
3.9 1.3 MB and draws nothing without JavaScript; altair and pyecharts ship no script of their own. A page may have 3 MB.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 560, 320
"""On the page a unit is about a pixel, on a phone two thirds of one."""
LEFT, RIGHT, TOP, BOTTOM = 78, 22, 14, 46

NUM_COLOURS = 8
"""Classes s0, s1, … of the page's style; more series share the last one."""

MOST_MARKS = 1500
"""Points that are elements of their own, with a title; more are strokes of one path a series."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A cell in a picture."""

    x: float
    y: float
    series: str
    title: str
    row: int
    """Of the page's table."""
    is_doubtful: bool = False
    """Drawn hollow: its allocator had to free and ask again."""


def scatter(points: Sequence[Point], x_label: str, y_label: str) -> str:
    """Points by series, and through those that no other beats in both (less x, more y) the Pareto line."""
    if not points:
        return ""
    scale = _Scale(points)
    names = list(dict.fromkeys(point.series for point in points))
    front = " ".join(f"{scale.x(one.x):.1f},{scale.y(one.y):.1f}" for one in pareto(points))
    body = [*scale.axes(x_label, y_label), f'<polyline class="front" points="{front}"/>']
    return _svg([*body, *_marks(points, names, scale)], f"{y_label} against {x_label}") + _legend(names)


def curves(points: Sequence[Point], x_label: str, y_label: str) -> str:
    """A line a series, hollow where the allocator had to free and ask again."""
    if not points:
        return ""
    scale = _Scale(points)
    names = list(dict.fromkeys(point.series for point in points))
    lines = []
    for number, name in enumerate(names):
        own = sorted((point for point in points if point.series == name), key=lambda point: point.x)
        path = " ".join(f"{scale.x(one.x):.1f},{scale.y(one.y):.1f}" for one in own)
        lines.append(f'<polyline class="curve s{min(number, NUM_COLOURS - 1)}" points="{path}"/>')
    body = [*scale.axes(x_label, y_label), *lines, *_marks(points, names, scale)]
    return _svg(body, f"{y_label} against {x_label}") + _legend(names)


def pareto(points: Sequence[Point]) -> list[Point]:
    """The points that no other one beats in both coordinates, from the left."""
    best, front = -math.inf, []
    for point in sorted(points, key=lambda one: (one.x, -one.y)):
        if point.y > best:
            best = point.y
            front.append(point)
    return front


class _Scale:
    """From values to places; both axes begin at zero."""

    def __init__(self, points: Sequence[Point]) -> None:
        self.step_x = _step(max(point.x for point in points))
        self.step_y = _step(max(point.y for point in points))
        self.most_x = self.step_x * math.ceil(max(point.x for point in points) / self.step_x + 0.05)
        self.most_y = self.step_y * math.ceil(max(point.y for point in points) / self.step_y + 0.05)

    def x(self, value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * value / self.most_x

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / self.most_y

    def axes(self, x_label: str, y_label: str) -> list[str]:
        """Grid, numbers and labels."""
        lines = []
        for count in range(round(self.most_x / self.step_x) + 1):
            value = count * self.step_x
            at = self.x(value)
            lines.append(f'<path class="grid" d="M{at:.1f} {TOP}V{HEIGHT - BOTTOM}"/>')
            text = _number(value, self.most_x)
            lines.append(f'<text x="{at:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{text}</text>')
        for count in range(round(self.most_y / self.step_y) + 1):
            value = count * self.step_y
            at = self.y(value)
            lines.append(f'<path class="grid" d="M{LEFT} {at:.1f}H{WIDTH - RIGHT}"/>')
            lines.append(
                f'<text x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{_number(value, self.most_y)}</text>'
            )
        middle = (TOP + HEIGHT - BOTTOM) / 2
        centre = (LEFT + WIDTH - RIGHT) / 2
        lines.append(f'<text x="{centre}" y="{HEIGHT - 8}" text-anchor="middle">{escape(x_label)}</text>')
        lines.append(
            f'<text transform="translate(14 {middle}) rotate(-90)" text-anchor="middle">{escape(y_label)}</text>'
        )
        return lines


def _step(most: float) -> float:
    """1, 2 or 5 times a power of ten, so that an axis has four to eight of them."""
    if not most > 0:
        return 1.0
    raw = most / 6
    power = 10.0 ** math.floor(math.log10(raw))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * 0.999)


def _number(value: float, most: float) -> str:
    """A value of an axis that ends at `most`; all of an axis but zero have the same unit."""
    for limit, unit, suffix in ((1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if most >= limit and value:
            return f"{value / unit:g}{suffix}"
    return f"{value:,.6g}"


def _marks(points: Sequence[Point], names: Sequence[str], scale: _Scale) -> list[str]:
    place = {name: min(number, NUM_COLOURS - 1) for number, name in enumerate(names)}
    if len(points) <= MOST_MARKS:
        return [_mark(point, place[point.series], scale) for point in points]
    dots: dict[int, list[str]] = {}
    for point in points:
        dots.setdefault(place[point.series], []).append(f"M{scale.x(point.x):.0f} {scale.y(point.y):.0f}h0")
    return [f'<path class="dots s{number}" d="{"".join(dict.fromkeys(where))}"/>' for number, where in dots.items()]


def _mark(point: Point, number: int, scale: _Scale) -> str:
    hollow = " hollow" if point.is_doubtful else ""
    return (
        f'<circle class="mark s{number}{hollow}" data-row="{point.row}" cx="{scale.x(point.x):.1f}" '
        f'cy="{scale.y(point.y):.1f}" r="4.5"><title>{escape(point.title)}</title></circle>'
    )


def _svg(body: Sequence[str], label: str) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">{"".join(body)}</svg>'


def _legend(names: Sequence[str]) -> str:
    shown = list(names) if len(names) <= NUM_COLOURS else [*names[: NUM_COLOURS - 1], "others"]
    items = (f'<span><i class="key s{number}"></i>{escape(name)}</span>' for number, name in enumerate(shown))
    return f'<p class="legend">{"".join(items)}</p>' if len(names) > 1 else ""
