"""`sweep.expect`: what may be written, and which cells are meant."""

import pytest

from benchrunner.core.errors import ConfigError
from benchrunner.plan.expectation import TOLERANCE, read_expectations, read_selection, vain_expectations
from samples import CPU, make_cell

ENTRY = {
    "name": "compiled is faster", "less": {"compile": "inductor"}, "more": {"compile": "eager"},
    "metric": "step_time_median_s", "because": "fusion",
}  # fmt: skip


def test_an_entry_as_it_should_be():
    (found,) = read_expectations([ENTRY])
    assert found.less.has(make_cell(compile="inductor"), CPU) and not found.less.has(make_cell(), CPU)
    assert found.more.has(make_cell(), CPU) and found.by == TOLERANCE
    assert read_expectations([ENTRY | {"by": 0}])[0].by == 0.0
    assert read_expectations([ENTRY | {"because": "it\n  fuses"}])[0].because == "it fuses"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"metric": "step_time_medain_s"}, r"sweep.expect\[0\].*step_time_median_s"),
        ({"less": {"compiler": "eager"}}, r"sweep.expect\[0\].less.*compile"),
        ({"more": {}}, r"^sweep.expect\[0\].more: {} is not {key: pattern}"),
        ({"more": "eager"}, r"sweep.expect\[0\].more"),
        ({"by": 1}, r"^sweep.expect\[0\]: by is a share.*not 1$"),
        ({"by": True}, "share"),
        ({"by": "3%"}, "share"),
        ({"why": "x"}, r"^sweep.expect\[0\]: has name.*got name.*why"),
    ],
)
def test_a_wrong_entry_is_named(change, named):
    with pytest.raises(ConfigError, match=named):
        read_expectations([ENTRY | change])


def test_a_missing_part_is_an_error():
    for name in ENTRY:
        with pytest.raises(ConfigError, match="has name, metric, because, and less and more, or of"):
            read_expectations([{key: value for key, value in ENTRY.items() if key != name}])


def test_a_selection_asks_for_all_of_its_keys_and_for_resolved_sizes():
    selection = read_selection({"strategy": "ddp", "devices": 2}, "here")
    assert selection.has(make_cell(strategy="ddp"), CPU)
    assert not selection.has(make_cell(), CPU)


TURN = {
    "name": "retries cost time", "of": {"strategy": "single"}, "along": "micro_batch_size",
    "begins": "num_alloc_retries", "metric": "samples_per_second", "because": "it waits",
}  # fmt: skip


def test_a_turn_selects_the_cells_that_it_is_looked_for_in():
    (found,) = read_expectations([TURN])
    assert (found.turn.along, found.turn.begins) == ("micro_batch_size", "num_alloc_retries")
    for side in (found.less, found.more):
        assert side.has(make_cell(), CPU) and not side.has(make_cell(strategy="ddp"), CPU)


@pytest.mark.parametrize(
    ("change", "named"),
    [({"along": "micro_batch"}, "along.*micro_batch_size"), ({"begins": "retries"}, r"0\].begins.*num_alloc_retries"),
     ({"less": {"compile": "eager"}}, "or of, along and begins"), ({"of": {}}, r"\[0\].of")],
)  # fmt: skip
def test_a_wrong_turn_is_named(change, named):
    with pytest.raises(ConfigError, match=named):
        read_expectations([TURN | change])


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({}, None),
        ({"less": {"compile": "thunder"}}, "no cell of this sweep is meant (less)"),
        ({"more": {"compile": "eager|inductor"}}, "2 cells are meant, not one (more)"),
    ],
)
def test_what_cannot_be_judged_is_known_before_anything_runs(change, why):
    cells = [make_cell(), make_cell(compile="inductor")]
    said = f"1 of 2 orderings in sweep.expect will not be judged: compiled is faster: {why}" if why else None
    assert vain_expectations(read_expectations([ENTRY | change, TURN]), cells, CPU) == said


def test_a_turn_is_looked_for_in_any_number_of_cells_and_a_search_may_try_what_is_meant():
    (turn,) = read_expectations([TURN])
    other = make_cell(strategy="ddp", visible_devices=2)
    assert "no cell of this sweep is meant (of)" in vain_expectations([turn], [other], CPU)
    assert vain_expectations([turn], [other, make_cell(leaves={"micro_batch_size": "max"})], CPU) is None
    small = read_expectations([ENTRY | {"less": {"micro_batch_size": 7}}])
    cells = [make_cell(), make_cell(compile="inductor", leaves={"micro_batch_size": "max"})]
    assert vain_expectations(small, cells, CPU) is None
