from dataclasses import replace

import pytest

from benchrunner.core.record import PHASES
from benchrunner.run.limits import phase_limits_s
from samples import make_cell, plan_cell


def limits(predicted_s=None, **axes):
    leaves = axes.pop("leaves", {})
    predicted = None if predicted_s is None else {"step_time_s": predicted_s}
    return phase_limits_s(replace(plan_cell(make_cell(leaves=leaves, **axes)), predicted=predicted), "cuda")


def test_every_phase_has_a_limit():
    assert set(limits()) == set(PHASES) and min(limits().values()) > 0


def test_words_win():
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
    assert compiled["compile"] >= eager["compile"] + 300
    assert compiled["compile"] >= limits(0.1, compile="inductor")["compile"]


def test_a_step_of_unknown_time_is_judged_by_its_work():
    assert limits(model="debug", leaves={"model.num_layers": 9000})["measure"] > limits()["measure"]
    long, short = (limits(workload="generate", leaves={"generate.new_tokens": n}) for n in (4000, 10))
    assert long["measure"] > short["measure"]
