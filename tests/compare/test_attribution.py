"""What else changed in a cell: each clue speaks from its own limit on, and only where both sides have it."""

from dataclasses import replace

import pytest

from benchrunner.compare.attribution import attribute
from benchrunner.compare.pairing import CellPair
from benchrunner.compare.side import MeasuredCell
from samples import make_cell, make_record, plan_cell

CELL = make_cell()


def said(before, after, cells=(CELL, CELL)):
    """Of two processes, each given by what `make_record` takes; a list: several."""
    records = [
        [make_record(CELL, **one) for one in (given if isinstance(given, list) else [given])]
        for given in (before, after)
    ]
    base, new = (
        MeasuredCell(planned=plan_cell(cell), records=found) for cell, found in zip(cells, records, strict=True)
    )
    return attribute(CellPair(base=base, new=new))


def ranked(**choices):
    return {"ranks": [{"rank": 0, "choices": choices}]}


@pytest.mark.parametrize(
    ("name", "before", "after", "sentence"),
    [
        ("peak_memory_allocated_bytes", 100 << 20, 102 << 20, "memory: peak allocated 100 → 102 MiB (+2.0 %)"),
        ("peak_memory_allocated_bytes", 1000, 1009, None),
        ("num_alloc_retries", 0, 1, "memory: allocator retries 0 → 1"),
        ("num_alloc_retries", 4, 1, "memory: allocator retries 4 → 1 (-75.0 %)"),
        ("sm_clock_mhz_mean", 1000.0, 1010.0, "clock: SM clock 1,000 → 1,010 MHz (+1.0 %)"),
        ("sm_clock_mhz_mean", 1000.0, 1009.0, None),
        ("gpu_utilization_mean", 90.0, 88.0, "utilization: share of time with a kernel 90 → 88 % (-2.2 %)"),
        ("gpu_utilization_mean", 90.0, 88.1, None),
        ("compile_time_s", 4.0, 5.0, "compile: compile time 4 → 5 s (+25.0 %)"),
        ("compile_time_s", 50.0, 59.0, None),
        ("compile_time_s", 0.0, 2.0, "compile: compile time 0 → 2 s"),
        ("compile_time_s", 1.0, 1.9, None),
        ("num_graphs", 2, 3, "compile: graphs 2 → 3 (+50.0 %)"),
        ("num_graph_breaks", 0, 0, None),
        ("num_recompiles", 1, 0, "recompilation: recompilations in the window 1 → 0 (-100.0 %)"),
        ("step_time_rank_skew", 0.0, 0.02, "communication: skew between ranks 0 → 2 %"),
        ("step_time_rank_skew", 0.01, 0.029, None),
        ("num_graphs", None, 3, None),
        ("num_graphs", 3, None, None),
    ],
)
def test_a_number_that_moved_far_enough_is_told(name, before, after, sentence):
    assert said({"metrics": {name: before}}, {"metrics": {name: after}}) == ([sentence] if sentence else [])


def test_the_first_clue_that_is_not_known_hides_no_other():
    metrics = [{"metrics": {"num_graphs": value, "num_alloc_retries": None}} for value in (1, 2)]
    assert said(*metrics) == ["compile: graphs 1 → 2 (+100.0 %)"]


def test_the_mean_is_over_the_processes_that_are_ok():
    after = [{"metrics": {"num_graphs": 2}}, {"metrics": {"num_graphs": 4}}]
    failed = {"status": "failed", "metrics": {"num_graphs": 99}, "ranks": ranked(attention="odd")["ranks"]}
    assert said({"metrics": {"num_graphs": 1}}, [failed, *after]) == ["compile: graphs 1 → 3 (+200.0 %)"]


def test_what_libraries_chose_is_told_but_what_follows_from_numbers():
    before = ranked(attention="flash", gemm="a", gone=1, loss_scale=2.0, num_skipped_steps=1)
    after = [{"ranks": []}, ranked(attention="math", gemm="a", came={"b": 1, "a": 2}, loss_scale=4.0)]
    assert said(before, after) == [
        "kernels: attention flash → math",
        "kernels: gone 1 → null",
        'kernels: came null → {"a":2,"b":1}',
    ]


def test_ranks_that_say_nothing_of_choices_have_none():
    assert said({"ranks": [{"rank": 0}]}, ranked(gemm="a")) == ["kernels: gemm null → a"]


def test_flags_and_neighbours_of_one_side_are_told():
    assert said({"flags": ["b", "x"], "ran_beside": ["other"]}, {"flags": ["x", "a"]}) == [
        "flag a: new",
        "flag b: gone",
        "neighbours: base alone ran beside other cells",
    ]
    assert said({}, [{}, {"ran_beside": ["other"]}]) == ["neighbours: new alone ran beside other cells"]
    assert said({"ran_beside": ["a"]}, {"ran_beside": ["b"]}) == []


def changed(**leaves):
    """The cell under other defaults: its id is the same, its configuration and digest are not."""
    other = make_cell(leaves={key.replace("__", "."): value for key, value in leaves.items()})
    return replace(CELL, config=other.config, config_digest=other.config_digest)


def test_defaults_that_changed_under_a_cell_are_told():
    more = {"model__num_layers": 7, "model__description": "other", "seq_len": 64, "measure__steps": 99, "out_dir": "x"}
    assert said({}, {}, (CELL, changed(**more))) == [
        f"settings: model.num_layers {CELL.config.model.num_layers} → 7",
        "settings: measure.steps 20 → 99",
        "settings: seq_len null → 64",
    ]
    assert said({}, {}, (CELL, replace(changed(seq_len=64), config_digest=CELL.config_digest))) == []


@pytest.mark.parametrize("count", [5, 6, 8])
def test_of_many_changed_settings_five_are_named(count):
    names = ["num_layers", "d_model", "num_heads", "num_kv_heads", "d_ff", "vocab_size", "max_seq_len", "dropout"]
    leaves = {f"model__{name}": 77 for name in names[:count]}
    told = said({}, {}, (CELL, changed(**leaves)))
    assert len(told) == min(count, 6)
    assert told[5:] == ([f"settings: {count - 5} more"] if count > 5 else [])
