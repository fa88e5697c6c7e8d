from dataclasses import replace

import pytest

from benchrunner.plan.plan import Plan, processes_of
from samples import CPU, make_cell, plan_cell

CELLS = [plan_cell(make_cell(leaves={"repeats": 2, **leaves})) for leaves in ({}, {"micro_batch_size": "max"})]
PLAN = Plan(cells=CELLS, hardware=CPU, sweep_name="cli", arguments=[], created_at="2026-11-21T03:00:00+00:00")


@pytest.mark.parametrize(("repeats", "later"), [(1, []), (2, [2]), (3, [2, 3])])
def test_all_first_processes_come_first_and_a_search_has_no_other(repeats, later):
    expected = [*CELLS, *(replace(CELLS[0], repeat=number) for number in later)]
    assert processes_of(CELLS, repeats) == PLAN.processes(repeats) == expected


def test_as_many_processes_as_the_sweep_says():
    assert PLAN.processes() == processes_of(CELLS, 2)
    assert len({one.place for one in PLAN.processes()}) == 3
