"""A metric over many sweeps: levels that change are found where they do, and nowhere else."""

import csv
import random
from dataclasses import replace

import pytest

from benchrunner.compare import history
from benchrunner.compare.history import Point, change_points, history_csv, history_text, make_tracks, sparkline
from benchrunner.compare.metric import METRICS
from fake_sweeps import ENVIRONMENT, cells
from samples import make_record
from sides import timed_side

TIME = METRICS["time"]


def series(*levels, spread=0.005, seed=3):
    draw = random.Random(seed)
    return [level + draw.gauss(0, spread) for level in levels]


def test_a_step_is_found_where_it_is():
    assert change_points(series(*[0.0] * 8, *[0.06] * 7), 0.03, 0.05) == [8]
    assert change_points(series(*[0.0] * 8, *[-0.06] * 7, *[0.1] * 6), 0.03, 0.05) == [8, 15]


@pytest.mark.parametrize(
    "values", [[], [0.0], [0.0, 1.0, 1.0], series(*[0.0] * 30), series(*[0.0] * 9, 0.2, *[0.0] * 9)]
)
def test_neither_noise_nor_one_outlier_is_a_change(values):
    assert change_points(values, 0.03, 0.05) == []


def test_a_change_below_the_minimum_is_none():
    assert change_points(series(*[0.0] * 10, *[0.02] * 10, spread=0.001), 0.03, 0.05) == []


def test_noise_seldom_changes_over_many_series():
    found = [bool(change_points(series(*[0.0] * 20, spread=0.05, seed=seed), 0.03, 0.05)) for seed in range(100)]
    assert sum(found) <= 10  # 5 in 100, and what chance adds


@pytest.fixture
def sides(tmp_path):
    """Eight sweeps, given newest first, of two cells: one slower from the fifth on, one that failed twice."""
    first, second = cells(2)
    made = []
    for night in range(8):
        seconds = (1.1 if night >= 4 else 1.0) + night % 2 / 1000
        broken = [make_record(second.cell, "failed", "failed.exception", "boom")]
        times = [(first, (seconds, seconds)), (second, broken if night < 6 else (2.0,))]
        environment = ENVIRONMENT | {"git": {"commit": f"{night}" * 12}}
        side = timed_side(tmp_path / str(night), times, environment=environment)
        made.insert(0, replace(side, plan=replace(side.plan, created_at=f"2026-11-{night + 1:02}T03:00:00+00:00")))
    return made


def test_it_is_in_the_order_of_time_with_the_commits_around_a_change(sides):
    [track] = make_tracks(sides, TIME)
    assert [point.commit[0] for point in track.points] == list("01234567")
    assert [change.index for change in track.changes] == [4]
    text = history_text([track], TIME)
    assert "+10.0 % from 2026-11-05T03:00:00+00:00, commits 3333333333..4444444444" in text
    assert "▁▁▁▁████" in text


def test_the_csv_has_a_line_a_cell_and_sweep(sides):
    rows = list(csv.DictReader(history_csv(make_tracks(sides, TIME), TIME).splitlines()))
    assert [bool(row["change"]) for row in rows] == [False] * 4 + [True] + [False] * 3
    assert float(rows[0]["value"]) == pytest.approx(1.0) and rows[0]["num_processes"] == "2"


def test_sweeps_of_other_cells_have_no_history(sides):
    assert make_tracks(sides[:2], TIME) == []


def test_the_whole_history_of_a_cell(sides):
    [track] = make_tracks(sides, TIME)
    rows = list(csv.reader(history_csv([track], TIME).splitlines()))
    assert rows[0] == [
        "cell_id", "slug", "sweep", "created_at", "commit", "metric", "value", "num_processes", "change",
    ]  # fmt: skip
    created = "2026-11-05T03:00:00+00:00"
    assert rows[5][:6] == [track.cell_id, track.slug, track.points[4].sweep, created, "4" * 12, "time"]
    assert (float(rows[5][6]), rows[5][7]) == (pytest.approx(1.1), "2")
    assert float(rows[5][8]) == pytest.approx(0.1, abs=1e-3)
    text = history_text([track], TIME).splitlines()
    assert text[0] == "Over time (µs/token; a change is shown with the commits around it)"
    assert text[1].split("  ")[1:] == ["1e+06 → 1.101e+06", track.slug]
    assert text[2].endswith(f", sweep {track.points[4].sweep}")


def test_tracks_that_changed_come_first_and_unknown_commits_are_said(sides):
    [track] = make_tracks(sides, TIME)
    calm = replace(track, slug="calm", changes=[])
    nameless = replace(track, points=[replace(point, commit=None) for point in track.points])
    lines = history_text([calm, nameless], TIME).splitlines()
    assert lines[1].endswith(track.slug) and lines[3].endswith("calm")
    assert "commits unknown..unknown" in lines[2]
    text = history_csv([nameless], TIME)
    assert ",unknown,time," in text and "\r" not in text and ",2,\n" in text


def test_a_sweep_that_knows_no_commit_is_in_the_history_all_the_same(tmp_path):
    made = [timed_side(tmp_path / str(night), [(cells(1)[0], (1.0,))]) for night in range(3)]
    [track] = make_tracks(made, TIME)
    assert [point.commit for point in track.points] == [None] * 3


def test_a_course_is_drawn_between_its_lowest_and_highest():
    def course(*values):
        return sparkline([Point(sweep="", created_at="", commit=None, log_value=v, num_processes=1) for v in values])

    assert course(0.0, 0.35, 0.7) == "▁▅█"
    assert course(5.0, 5.0) == "▁▁", "nothing moved"
    assert course(5.7, 5.0) == "█▁"
    assert course(0.0, 0.015) == "▁▅", "half of what is of interest"


def test_three_sweeps_of_the_same_device_make_a_history(sides):
    three = sides[-3:]
    assert [len(track.points) for track in make_tracks(three, TIME)] == [3]
    odd = replace(three[0], plan=replace(three[0].plan, hardware=replace(three[0].plan.hardware, device_name="other")))
    assert make_tracks([odd, *three[1:]], TIME) == []


def test_two_sweeps_on_either_side_of_a_change_are_enough():
    assert change_points([0.0, 0.0001, 0.06, 0.0601], 0.03, 0.05) == [2]
    assert change_points([0.0, 0.06, 0.0601], 0.03, 0.05) == []


@pytest.mark.parametrize("level", [0.0, 5.0, -5.0])
@pytest.mark.parametrize(("shift", "found"), [(0.1213, []), (0.1221, [2]), (-0.1213, []), (-0.1221, [2])])
def test_a_change_is_one_beyond_the_quantile_of_its_t(level, shift, found):
    """Of four values with a spread of s, t is shift ÷ (s · √2), and 4.3027 its quantile."""
    assert change_points([level, level + 0.04, level + shift, level + shift + 0.04], 0.03, 0.05) == found


def test_a_change_after_a_larger_one_is_found_where_it_is():
    noise = [0.0, 0.001, 0.0005, 0.0]
    values = [level + one for level in (5.0, 6.0, 6.1) for one in noise]
    assert change_points(values, 0.03, 0.05) == [4, 8]
    assert change_points(values, 0.2, 0.05) == [4]


def test_the_levels_around_each_change_are_those_between_changes(sides):
    values = [0.0, 0.001, 1.0, 1.001, 1.1, 1.101]
    points = [Point(sweep="", created_at="", commit=None, log_value=value, num_processes=1) for value in values]
    [first, second] = history._changes(points, 0.03, 0.05)
    assert (first.index, second.index) == (2, 4)
    assert (first.log_ratio, second.log_ratio) == (pytest.approx(1.0), pytest.approx(0.1))


def test_the_test_is_corrected_for_the_number_of_histories(sides, monkeypatch):
    asked = []
    monkeypatch.setattr(history, "_changes", lambda points, effect, alpha: asked.append((effect, alpha)) or [])
    make_tracks(sides, TIME)
    monkeypatch.setattr(history, "LEAST_SWEEPS", 2)
    make_tracks(sides, TIME, 0.1)
    assert asked == [(0.03, 0.05), (0.1, 0.025), (0.1, 0.025)]
    assert make_tracks([], TIME) == []
