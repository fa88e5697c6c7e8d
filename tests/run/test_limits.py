from dataclasses import replace

import pytest

from benchrunner.core.record import PHASES
from benchrunner.plan.costs import compiler_s, expected_phases_s
from benchrunner.run.limits import phase_limits_s
from samples import make_cell, plan_cell


def cell(predicted_s=None, **axes):
    leaves = axes.pop("leaves", {})
    predicted = None if predicted_s is None else {"step_time_s": predicted_s}
    return replace(plan_cell(make_cell(leaves=leaves, **axes)), predicted=predicted)


def limits(predicted_s=None, **axes):
    return phase_limits_s(cell(predicted_s, **axes), "cuda")


def test_every_phase_has_a_limit():
    assert set(limits()) == set(PHASES) and min(limits().values()) > 0


@pytest.mark.parametrize("axes", [{}, {"compile": "inductor"}, {"compile": "thunder"}, {"workload": "generate"}])
def test_a_limit_that_is_hit_means_a_hang(axes):
    """A minute, and an order of magnitude more than what is expected, a compiler at work again included."""
    given, planned = limits(2.0, **axes), cell(2.0, **axes)
    expected_s = expected_phases_s(planned, "cuda")
    assert all(given[phase] >= 60 + 10 * expected_s[phase] for phase in PHASES)
    again_s = compiler_s(planned.cell, "cuda")
    assert all(given[phase] >= 10 * (expected_s[phase] + again_s) for phase in ("warmup", "measure", "check"))


def test_a_hang_costs_no_more_than_its_work_allows():
    """Of a small eager cell two minutes at most once its ranks are there; they may be read from a slow disk."""
    given = limits(0.1)
    assert max(given[phase] for phase in PHASES[1:]) <= 120
    assert given["start"] >= 180


def test_libraries_that_few_cells_need_are_given_their_time():
    assert limits(engine="fabric")["build"] >= limits()["build"] + 100
    assert limits(precision="nf4")["build"] >= limits()["build"] + 100


def test_overrides_win():
    given = limits(leaves={"limits.measure_s": 7.5})
    assert given["measure"] == 7.5 and given["build"] == limits()["build"]


def test_limits_grow_with_the_work():
    small, slow = limits(0.1), limits(10.0)
    assert all(slow[phase] > small[phase] for phase in ("compile", "warmup", "measure", "check"))
    assert limits(10.0, leaves={"measure.steps": 200})["measure"] > slow["measure"]
    assert limits(0.1, leaves={"model.num_layers": 4000})["build"] > small["build"]


@pytest.mark.parametrize("leaves", [{"compile.scope": "model"}, {"compile.mode": "max-autotune"}, {}])
def test_a_compiler_is_given_its_time(leaves):
    eager, compiled = limits(0.1), limits(0.1, compile="inductor", leaves=leaves)
    assert compiled["compile"] >= eager["compile"] + 140
    assert compiled["compile"] >= limits(0.1, compile="inductor")["compile"]


def test_a_step_of_unknown_time_is_judged_by_its_work():
    assert limits(model="debug", leaves={"model.num_layers": 9000})["measure"] > limits()["measure"]
    long, short = (limits(workload="generate", leaves={"generate.new_tokens": n}) for n in (4000, 10))
    assert long["measure"] > short["measure"]
