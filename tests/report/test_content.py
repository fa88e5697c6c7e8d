from benchrunner.report.content import cost_by_phase_s, cost_sentence
from samples import make_cell, make_record


def record(launch_s, status="ok"):
    phases = {"start": 4.0, "build": 1.0, "measure": 2.0}
    return make_record(make_cell(), status, phases_s=phases, wall_s=7.0 + launch_s)


def test_what_is_in_no_phase_is_launch():
    cost = cost_by_phase_s(record(3.0))
    assert cost["launch"] == 3.0 and cost["start"] == 4.0 and cost["check"] == 0.0


def test_medians_over_the_cells_that_ran_to_their_end():
    sentence = cost_sentence([record(1.0), record(3.0), record(9.0), record(99.0, status="failed")])
    assert sentence.startswith(
        "Median seconds by phase of the 3 cells that are ok: launch 3.00, start 4.00, build 1.00"
    )


def test_nothing_is_said_where_nothing_ran():
    assert cost_sentence([make_record(make_cell(), phases_s={})]) is None
