from dataclasses import replace

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
