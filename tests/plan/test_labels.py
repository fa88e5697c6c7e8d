from dataclasses import replace

import pytest

from benchrunner.plan.labels import short_labels
from samples import make_cell, plan_cell


def test_a_label_says_what_varies_and_nothing_else():
    cells = [make_cell(), make_cell(strategy="ddp"), make_cell(strategy="ddp", leaves={"seed": 3, "timeout_s": 5.0})]
    assert list(short_labels([plan_cell(cell) for cell in cells]).values()) == [
        f"single · {cells[0].cell_id[:6]}",
        f"ddp · {cells[1].cell_id[:6]}",
        f"ddp · seed 3 · {cells[2].cell_id[:6]}",
    ]


def test_a_cell_alone_is_called_by_its_model():
    cell = make_cell(leaves={"seed": 3})
    assert short_labels([plan_cell(cell)]) == {cell.slug: f"debug · {cell.cell_id[:6]}"}


def test_what_a_cell_does_not_read_tells_it_from_nobody():
    single, ddp = make_cell(), make_cell(strategy="ddp", leaves={"devices": 2})
    deaf = replace(plan_cell(single), left_out=("devices=2",))
    assert list(short_labels([deaf, plan_cell(ddp)]).values()) == [
        f"single · {single.cell_id[:6]}", f"ddp · {ddp.cell_id[:6]}",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([{"leaves": {"seed": 3}}, {"leaves": {"seed": 4}}], ["seed 3", "seed 4"]),
        ([{"leaves": {"seed": 3, "model.num_layers": n}} for n in (2, 3)], ["num_layers 2", "num_layers 3"]),
        ([{}, {"leaves": {"compile.dynamic": None}}], ["debug", "dynamic null"]),
        (
            [{"activation_checkpointing": name} for name in ("none", "full")],
            ["checkpointing none", "checkpointing full"],
        ),
    ],
)
def test_an_option_or_a_setting_is_named_by_its_last_word(given, words):
    cells = [make_cell(**one) for one in given]
    labels = short_labels([plan_cell(cell) for cell in cells])
    assert list(labels.values()) == [f"{word} · {cell.cell_id[:6]}" for word, cell in zip(words, cells, strict=True)]


def test_a_value_that_was_left_out_may_hold_an_equals_sign():
    eager, other = make_cell(), make_cell(compile="inductor", leaves={"compile.mode": "a=b"})
    deaf = replace(plan_cell(eager), left_out=("compile.mode=a=b",))
    assert list(short_labels([deaf, plan_cell(other)]).values()) == [
        f"eager · {eager.cell_id[:6]}", f"inductor · {other.cell_id[:6]}",
    ]  # fmt: skip
