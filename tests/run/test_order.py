from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from benchrunner.run.order import family, order_by_information, smaller_first, smaller_first_in_place
from samples import make_cell, plan_cell

PRECISIONS, COMPILERS = ("fp32", "bf16", "bf16-mixed", "nf4"), ("eager", "inductor", "thunder")


def cell(size=1, seed=0, **axes):
    return plan_cell(make_cell(leaves={"micro_batch_size": size, "seed": seed}, **axes))


def sizes(cells):
    return [planned.cell.sizes.micro_batch_size for planned in cells]


def test_a_family_differs_in_the_micro_batch_alone():
    assert family(cell(1)) == family(cell(8))
    assert family(cell(1)) != family(cell(1, seed=1))
    assert family(cell(1)) != family(cell(1, precision="fp32"))
    named = plan_cell(make_cell(leaves={"seq_len": 64, "micro_batch_size": 2}))
    assert family(named) != family(plan_cell(make_cell(leaves={"micro_batch_size": 2})))


def test_smaller_ones_first():
    cells = [cell(8), cell(2, seed=1), cell(1), cell(4), cell(1, seed=1)]
    assert sizes(smaller_first(cells)) == [1, 1, 2, 4, 8]
    assert sizes(smaller_first_in_place(cells)) == [1, 1, 4, 8, 2]


@given(
    st.lists(
        st.tuples(st.sampled_from(PRECISIONS), st.sampled_from(COMPILERS), st.integers(0, 3)),
        unique=True,
        min_size=1,
        max_size=30,
    ),
    st.randoms(use_true_random=False),
)
def test_each_next_cell_shows_the_most(values, random):
    cells = [cell(1, seed, precision=one, compile=two) for one, two, seed in values]
    costs = {planned.cell.slug: random.random() for planned in cells}
    ordered = order_by_information(cells, costs)
    assert sorted(map(id, ordered)) == sorted(map(id, cells))
    shown = {id(planned): set(enumerate(own)) for planned, own in zip(cells, values, strict=True)}
    shared = set.intersection(*shown.values())

    def new(planned, before):
        own = shown[id(planned)] - shared
        seen = set().union(*(shown[id(one)] for one in before)) if before else set()
        pairs = {frozenset(pair) for one in before for pair in combinations(shown[id(one)], 2)}
        return len(own - seen), len({frozenset(pair) for pair in combinations(own, 2)} - pairs)

    for number, planned in enumerate(ordered):
        gain = (*new(planned, ordered[:number]), -costs[planned.cell.slug])
        assert gain == max((*new(one, ordered[:number]), -costs[one.cell.slug]) for one in ordered[number:])


def test_a_changed_setting_tells_as_much_as_an_option():
    cells = [cell(1, seed, precision=one) for seed in range(2) for one in ("fp32", "bf16")]
    ordered = order_by_information(cells, {one.cell.slug: place for place, one in enumerate(cells)})
    assert ordered == [cells[0], cells[3], cells[1], cells[2]], "the second shows two new values, though it costs most"


def test_nothing_to_run_is_in_order():
    assert order_by_information([], {}) == smaller_first([]) == smaller_first_in_place([]) == []
