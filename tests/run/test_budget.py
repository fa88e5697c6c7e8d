from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchrunner.core.errors import UsageError
from benchrunner.plan.costs import expected_cell_s
from benchrunner.run.budget import Budget, parse_duration
from benchrunner.run.order import order_by_information
from samples import make_cell, make_record, plan_cell


@pytest.mark.parametrize(
    ("text", "seconds"), [("45m", 2700), ("1h30m", 5400), ("90s", 90), ("90", 90), ("0.5h", 1800), ("1h1m1s", 3661)]
)
def test_durations(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "soon", "-5m", "1d", "m", "1.2.3h", "nan"])
def test_what_is_no_duration(text):
    with pytest.raises(UsageError, match="--budget"):
        parse_duration(text)


def cell(precision="bf16", compiler="eager", seed=0, **leaves):
    return plan_cell(make_cell(precision=precision, compile=compiler, leaves={"seed": seed} | leaves))


def took(budget, planned, factor, **changes):
    """The cell took so many times the seconds that were expected."""
    wall_s = factor * expected_cell_s(planned, "cpu")
    budget.learn(planned, make_record(planned.cell, **{"wall_s": wall_s} | changes))


def test_experience_corrects_the_prediction():
    budget, planned = Budget(1000.0, 0.0, "cpu"), cell()
    before = budget.expected_s(planned)
    for _ in range(3):
        took(budget, cell(seed=1), 3.0)
    assert budget.expected_s(planned) == pytest.approx(3 * before)


def test_a_cell_that_did_not_reach_its_end_corrects_nothing():
    budget, planned = Budget(1000.0, 0.0, "cpu"), cell()
    before = budget.expected_s(planned)
    for seed in range(1, 4):
        took(budget, cell(seed=seed), 3.0, status="failed")
        took(budget, cell(seed=seed), 3.0, wall_s=None)
    assert budget.expected_s(planned) == before


def test_what_does_not_fit_is_refused_with_the_reason():
    budget, planned = Budget(100.0, 50.0, "cpu"), cell(**{"measure.steps": 200})
    expected_s = budget.expected_s(planned)
    assert budget.refusal(planned, 150.0 - expected_s - 1) is None
    assert "20 s of the budget of 100 s are left" in budget.refusal(planned, 130.0).reason
    assert budget.refusal(planned, 130.0).reason_code == "skipped.budget"
    assert "0 s of the budget" in budget.refusal(planned, 500.0).reason
    assert budget.ending(200.0) is None and budget.ending(211.0) == "budget"


@given(
    st.lists(
        st.tuples(st.sampled_from("abcd"), st.sampled_from("xyz"), st.integers(0, 3)),
        unique=True,
        min_size=1,
        max_size=30,
    ),
    st.randoms(use_true_random=False),
)
def test_each_next_cell_tells_the_most(values, random):
    cells = [cell(f"precision-{one}", f"compiler-{two}", seed) for one, two, seed in values]
    costs = {planned.cell.slug: random.random() for planned in cells}
    ordered = order_by_information(cells, costs)
    assert sorted(map(id, ordered)) == sorted(map(id, cells))
    told = {id(planned): set(enumerate(own)) for planned, own in zip(cells, values, strict=True)}
    shared = set.intersection(*told.values())

    def new(planned, before):
        own = told[id(planned)] - shared
        seen = set().union(*(told[id(one)] for one in before)) if before else set()
        pairs = {frozenset(pair) for one in before for pair in combinations(told[id(one)], 2)}
        return len(own - seen), len({frozenset(pair) for pair in combinations(own, 2)} - pairs)

    for number, planned in enumerate(ordered):
        gain = (*new(planned, ordered[:number]), -costs[planned.cell.slug])
        assert gain == max((*new(one, ordered[:number]), -costs[one.cell.slug]) for one in ordered[number:])
