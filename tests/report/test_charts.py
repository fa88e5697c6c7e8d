"""Pictures, by what stands in their SVG: an axis from zero in round steps, and points where their numbers say."""

import re

import pytest

from benchrunner.report import charts
from benchrunner.report.charts import Point

TWO = [Point(x=100.0, y=1000.0, series="a", title="<t>", row=3, is_doubtful=True),
       Point(x=50.0, y=400.0, series="b", title="u", row=4)]  # fmt: skip
"""Axes end at 120 and 1,200: 460 × 260 from (78, 274), so that they lie at (461.3, 57.3) and (269.7, 187.3)."""


def of_series(number):
    return [Point(x=float(n + 1), y=1.0, series=f"n{n}", title="", row=n) for n in range(number)]


def axis(text, anchor):
    return re.findall(rf'text-anchor="{anchor}">([^<]*)</text>', text)


@pytest.mark.parametrize(
    ("most", "numbers"),
    [
        (100.0, ["0", "20", "40", "60", "80", "100", "120"]),
        (6.0, ["0", "1", "2", "3", "4", "5", "6", "7"]),
        (1e-3, ["0", "0.0002", "0.0004", "0.0006", "0.0008", "0.001", "0.0012"]),
        (6000.0, ["0", "1,000", "2,000", "3,000", "4,000", "5,000", "6,000", "7,000"]),
        (9500.0, ["0", "2k", "4k", "6k", "8k", "10k"]),
        (30_000.0, ["0", "5k", "10k", "15k", "20k", "25k", "30k", "35k"]),
        (2.9e6, ["0", "0.5M", "1M", "1.5M", "2M", "2.5M", "3M"]),
        (4e9, ["0", "1G", "2G", "3G", "4G", "5G"]),
        (0.0, ["0", "1"]),
    ],
)
def test_an_axis_goes_from_zero_beyond_the_largest_in_round_steps(most, numbers):
    text = charts.scatter([Point(x=1.0, y=most, series="s", title="t", row=0)], "x", "y")
    assert axis(text, "end") == numbers


def test_points_lie_where_their_numbers_say():
    text = charts.scatter(TWO, "peak", "speed")
    assert re.findall(r'<circle class="([^"]*)" data-row="(\d)" cx="([\d.]+)" cy="([\d.]+)"', text) == [
        ("mark s0 hollow", "3", "461.3", "57.3"), ("mark s1", "4", "269.7", "187.3"),
    ]  # fmt: skip
    assert "<title>&lt;t&gt;</title>" in text and "<title>u</title>" in text
    assert '<polyline class="front" points="269.7,187.3 461.3,57.3"/>' in text
    assert 'aria-label="speed against peak"' in text and 'viewBox="0 0 560 320"' in text
    assert axis(text, "middle") == ["0", "20", "40", "60", "80", "100", "120", "peak", "speed"]


def test_the_grid_has_a_line_a_number():
    text = charts.curves(TWO, "x", "y")
    assert re.findall(r'd="M([\d.]+) 14V274"', text) == ["78.0", "154.7", "231.3", "308.0", "384.7", "461.3", "538.0"]
    assert re.findall(r'd="M78 ([\d.]+)H538"', text) == ["274.0", "230.7", "187.3", "144.0", "100.7", "57.3", "14.0"]
    assert re.findall(r'x="([\d.]+)" y="292"', text)[:2] == ["78.0", "154.7"]
    assert re.findall(r'x="72" y="([\d.]+)"', text)[:2] == ["278.0", "234.7"]


def test_a_curve_goes_from_left_to_right_a_colour_a_series():
    points = [*TWO, Point(x=100.0, y=1000.0, series="b", title="", row=5)]
    text = charts.curves(list(reversed(points)), "x", "y")
    assert re.findall(r'<polyline class="([^"]*)" points="([^"]*)"', text) == [
        ("curve s0", "269.7,187.3 461.3,57.3"), ("curve s1", "461.3,57.3"),
    ]  # fmt: skip
    assert len(re.findall("<circle", text)) == 3


@pytest.mark.parametrize("draw", [charts.scatter, charts.curves])
def test_more_series_than_colours_share_the_last(draw):
    def legend(text):
        return re.findall(r'<i class="key (s\d)"></i>([^<]*)<', text)

    assert draw(of_series(1), "x", "y").endswith("</svg>") and draw([], "x", "y") == ""
    assert legend(draw(of_series(8), "x", "y")) == [(f"s{n}", f"n{n}") for n in range(8)]
    text = draw(of_series(10), "x", "y")
    assert legend(text) == [*((f"s{n}", f"n{n}") for n in range(7)), ("s7", "others")]
    colours = [*(f"s{n}" for n in range(8)), "s7", "s7"]
    assert re.findall(r'class="mark (s\d)', text) == colours
    assert re.findall(r'class="curve (s\d)', text) in (colours, [])


def test_many_points_are_strokes_of_a_path_a_series(monkeypatch):
    monkeypatch.setattr(charts, "MOST_MARKS", 2)
    assert "<circle" in charts.scatter(TWO, "x", "y")
    text = charts.scatter([*TWO, *TWO, Point(x=50.0, y=400.0, series="a", title="", row=6)], "x", "y")
    assert re.findall(r'<path class="(dots s\d)" d="([^"]*)"', text) == [
        ("dots s0", "M461 57h0M270 187h0"), ("dots s1", "M270 187h0"),
    ]  # fmt: skip
