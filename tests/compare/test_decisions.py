"""The test over all cells: its errors are as rare as it says, and it tests itself where nothing has changed."""

import random

import pytest

from benchrunner.compare.decisions import _doubt, decide, decide_pairs
from benchrunner.compare.effect import Effect

NUM_CELLS = 20


def sweeps(draw, spread, slow=0.0, num=3):
    """Both sides of 20 cells, of which the first one is slower by so much."""
    return {
        str(cell): [[draw.gauss(slow if side and not cell else 0.0, spread) for _ in range(num)] for side in range(2)]
        for cell in range(NUM_CELLS)
    }


def test_comparisons_of_the_same_thing_seldom_fail():
    draw = random.Random(1)
    alarms = sum(
        any(one.decision in ("slower", "faster") for one in decide(sweeps(draw, 0.015), 0.03).cells.values())
        for _ in range(60)
    )
    assert alarms <= 6  # 5 % of 60, and what chance adds


def test_a_slowdown_is_found_where_processes_agree_and_never_passes_where_they_do_not():
    draw = random.Random(2)
    quiet = [decide(sweeps(draw, 0.01, slow=0.05), 0.03).cells["0"].decision for _ in range(30)]
    loud = [decide(sweeps(draw, 0.08, slow=0.05), 0.03).cells["0"].decision for _ in range(30)]
    assert quiet.count("slower") >= 27
    assert "same" not in loud


def test_a_drift_within_one_side_makes_differences_unbelievable():
    steady, drift = [0.0, 0.001, 0.0, 0.001], [0.0, 0.001, 0.05, 0.051]
    cells = {str(n): [steady, [1.0 + one for one in steady]] for n in range(9)}
    cells["drifts"] = [drift, [1.0 + one for one in drift]]
    found = decide(cells, 0.03)
    assert (found.num_alarms, found.num_alarm_tests) == (2, 20)
    assert {one.decision for one in found.cells.values()} == {"undecided"}
    same = decide(cells | {"same": [steady, steady]}, 0.03).cells["same"]
    assert (same.decision, same.doubt) == ("same", None)
    assert "of this cell differ as much" in found.cells["drifts"].doubt
    assert "in 2 of 20 cases" in found.cells["0"].doubt


def test_without_a_drift_they_are_believed():
    cells = {str(n): [[0.001 * (n + i % 2) for i in range(4)], [0.2 + 0.001 * i for i in range(4)]] for n in range(9)}
    found = decide(cells, 0.03)
    assert (found.num_alarms, found.num_alarm_tests) == (0, 18)
    assert {one.decision for one in found.cells.values()} == {"slower"}


@pytest.mark.parametrize(
    ("own", "alarms", "tests", "where"),
    [(0, 1, 20, None), (0, 2, 39, "in 2 of 39 cases"), (0, 2, 40, None), (1, 1, 100, "of this cell"), (0, 0, 0, None)],
)
def test_as_many_alarms_as_chance_makes_are_no_doubt(own, alarms, tests, where):
    doubt = _doubt(own, alarms, tests)
    assert doubt is None if where is None else f"the halves of one side {where} differ as much" in doubt


def test_the_correction_is_for_all_cells_and_what_was_measured_once_has_no_halves():
    found = decide({"twice": [[0.0, 0.001], [0.0, 0.001]], "once": [[0.0], [0.0]]}, 0.03)
    assert {one.alpha for one in found.cells.values()} == {0.025}
    assert (found.num_alarms, found.num_alarm_tests) == (0, 2)


def test_pairs_are_corrected_for_cells_and_looks():
    differences = {"a": [0.05, 0.052, 0.049], "b": [0.0, 0.001, -0.001]}
    found = decide_pairs(differences, 0.03, num_looks=3)
    assert {name: one.decision for name, one in found.cells.items()} == {"a": "slower", "b": "same"}
    assert found.cells["a"].alpha == pytest.approx(0.05 / 6)
    assert decide_pairs({"a": [0.05]}, 0.03, num_looks=3).cells == {}


@pytest.mark.parametrize(
    ("ratio", "error", "decision"),
    [
        (0.05, 0.005, "slower"),
        (-0.05, 0.005, "faster"),
        (0.05, 0.05, "undecided"),
        (0.02, 0.001, "same"),
        (-0.02, 0.001, "same"),
        (0.02, 0.02, "undecided"),
        (0.029, 0.001, "undecided"),
    ],
)
def test_both_directions_are_treated_alike(ratio, error, decision):
    assert Effect(log_ratio=ratio, standard_error=error, df=1e9).decide(0.03, 0.05) == decision


def test_what_is_detectable_grows_with_the_error_and_is_more_than_the_minimum():
    small, large = (Effect(log_ratio=0.0, standard_error=error, df=50) for error in (0.001, 0.05))
    assert 0.03 < small.detectable(0.03, 0.05) < 0.035 < 0.1 < large.detectable(0.03, 0.05)
