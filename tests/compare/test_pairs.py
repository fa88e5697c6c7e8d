"""Alternated pairs: who begins alternates, decided cells are left alone, and another program is refused."""

import json
import sys

import pytest

from benchrunner.compare.gate import GateOptions
from benchrunner.compare.metric import METRICS
from benchrunner.compare.pairing import pair_cells
from benchrunner.compare.pairs import BenchRerun, PairsPlan, run_pairs
from benchrunner.core.errors import SweepDirError
from benchrunner.core.paths import SweepPaths
from fake_sweeps import cells
from sides import timed_side

OPTIONS = GateOptions()


@pytest.fixture
def pairing(tmp_path):
    planned = cells(4)
    sides = [timed_side(tmp_path / name, [(one, (1.0, 1.0)) for one in planned]) for name in ("b", "n")]
    return pair_cells(*sides)


def run(pairing, times, told=None, **plan):
    """Run pairs whose sides take what `times` says: (side, number of the cell, number of its run) → seconds."""
    calls = []

    def rerun(side, cell, metric):
        assert metric is OPTIONS.metric
        name = "base" if side is pairing.base else "new"
        place = [pair.slug for pair in pairing.pairs].index(cell.slug)
        calls.append((name, place))
        return times(name, place, sum(call == (name, place) for call in calls))

    told = [] if told is None else told
    sides = (pairing.base, pairing.new)
    found = run_pairs(pairing.pairs, sides, OPTIONS, rerun, PairsPlan(**plan), tell=told.append)
    return list(found.values()), calls


def test_who_begins_alternates_and_decided_cells_are_not_run_on(pairing):
    noisy = {1: 1.0, 2: 1.5, 3: 0.7, 4: 1.0, 5: 1.2}
    differences, calls = run(pairing, lambda name, place, n: noisy[n] if (name, place) == ("new", 0) else 1 + n / 1e4)
    assert [len(one) for one in differences] == [5, 3, 3, 3]
    assert calls[:4] == [("base", 0), ("new", 0), ("base", 1), ("new", 1)]
    assert calls[8:12] == [("new", 0), ("base", 0), ("new", 1), ("base", 1)]


def test_the_difference_is_new_against_base_whoever_began(pairing):
    differences, _ = run(pairing, lambda name, place, n: 2.0 if name == "new" else 4.0)
    assert all(value == pytest.approx(-0.6931, abs=1e-4) for one in differences for value in one)


def test_a_process_that_is_not_ok_makes_no_pair(pairing):
    differences, _ = run(pairing, lambda name, place, n: None if place == 0 else 1.0)
    assert [len(one) for one in differences] == [0, 3, 3, 3]
    for bad in ("base", "new"):
        differences, _ = run(pairing, lambda name, place, n, bad=bad: None if name == bad else 1.0)
        assert differences == [[], [], [], []]


def test_no_pair_begins_when_the_time_is_out(pairing):
    left, told = iter([True, True, False]), []
    differences, calls = run(pairing, lambda *_: 1.0, told, is_time_left=lambda: next(left))
    assert ([len(one) for one in differences], len(calls), told[-1]) == ([1, 1, 0, 0], 4, "the time is out")


def test_a_side_whose_program_refuses_is_named(pairing):
    words = [sys.executable, "-c", "import sys; sys.exit('bench: measured with commit abc, here def')"]
    rerun = BenchRerun({str(pairing.base.paths.root): words})
    with pytest.raises(SweepDirError, match="cannot be run again: bench: measured with commit abc, here def"):
        rerun(pairing.base, pairing.pairs[0].base, METRICS["time"])
    with pytest.raises(SweepDirError, match=r"cannot be run again: .*No such file"):
        BenchRerun({str(pairing.base.paths.root): ["/nowhere/bench"]})(
            pairing.base, pairing.pairs[0].base, METRICS["time"]
        )


MEASURE = """
import json, pathlib, sys
root, _, cell_id, _, number = sys.argv[2:]
[first] = [path for path in pathlib.Path(root, "cells").glob("*/record.json") if cell_id in path.read_text()]
record = json.loads(first.read_text()) | {"repeat": int(number), "metrics": {"step_time_median_s": 7.0}}
place = first.parent / f"repeat-{number}" / "record.json"
place.parent.mkdir()
place.write_text(json.dumps(record | {"reason": " ".join(sys.argv[1:])}))
"""


def test_a_cell_is_measured_in_the_next_process_of_its_sweep(pairing):
    side, cell = pairing.new, pairing.pairs[1].new
    rerun = BenchRerun({str(side.paths.root): [sys.executable, "-c", MEASURE]})
    assert rerun(side, cell, METRICS["time"]) == 7.0
    [written] = side.paths.cell(cell.slug).root.glob("repeat-3/record.json")
    words = f"resume {side.paths.root} --cells {cell.planned.cell.cell_id} --repeats 3"
    assert json.loads(written.read_text())["reason"] == words


def test_a_side_whose_program_says_nothing_is_named_by_its_code(pairing):
    rerun = BenchRerun({str(pairing.base.paths.root): [sys.executable, "-c", "import sys; sys.exit(3)"]})
    with pytest.raises(SweepDirError, match=rf"{pairing.base.paths.root} cannot be run again: exit code 3$"):
        rerun(pairing.base, pairing.pairs[0].base, METRICS["time"])


def test_of_what_a_program_says_its_last_line_is_told(pairing):
    words = [sys.executable, "-c", r"import os, sys; os.write(2, b'a warning\nbench: no \xff\n'); sys.exit(1)"]
    with pytest.raises(SweepDirError, match=r"cannot be run again: bench: no \ufffd$"):
        BenchRerun({str(pairing.base.paths.root): words})(pairing.base, pairing.pairs[0].base, METRICS["time"])


def test_the_next_process_is_counted_from_the_last(tmp_path):
    side = timed_side(tmp_path, [(cells(1)[0], (1.0, 1.0, 1.0))])
    rerun = BenchRerun({str(side.paths.root): [sys.executable, "-c", "import sys; sys.exit(sys.argv[-1])"]})
    with pytest.raises(SweepDirError, match=r"cannot be run again: 4$"):
        rerun(side, next(iter(side.cells.values())), METRICS["time"])


def test_what_is_run_is_told(pairing):
    told = []
    run(pairing, lambda *_: 1.0, told, most=3)
    assert told[0] == f"pair 1 of at most 3: {pairing.pairs[0].slug}" and len(told) == 12


def test_pairs_end_at_the_most_that_is_asked(pairing):
    noisy = [1.0, 1.0, 1.5, 0.7, 1.1, 1.0]
    differences, _ = run(pairing, lambda name, place, n: noisy[n] if name == "new" else 1.0, most=4)
    assert [len(one) for one in differences] == [4] * 4


def test_what_else_lies_among_the_processes_is_none(tmp_path):
    paths = SweepPaths(tmp_path)
    for name in ("repeat-2", "repeat-03", "repeat-4.bak", "repeat-999999999999", "repeat-٥"):
        (paths.cell("a").root / name).mkdir(parents=True)
    (paths.cell("a").root / "repeat-9").touch()
    assert paths.processes("a") == [1, 2] and paths.processes("b") == [1]
