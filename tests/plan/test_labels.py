from benchrunner.plan.labels import short_labels
from samples import make_cell


def test_a_label_says_what_varies_and_nothing_else():
    cells = [make_cell(), make_cell(strategy="ddp"), make_cell(strategy="ddp", leaves={"seed": 3, "timeout_s": 5.0})]
    assert list(short_labels(cells).values()) == [
        f"single · {cells[0].cell_id[:6]}",
        f"ddp · {cells[1].cell_id[:6]}",
        f"ddp · seed 3 · {cells[2].cell_id[:6]}",
    ]


def test_a_cell_alone_is_called_by_its_model():
    cell = make_cell(leaves={"seed": 3})
    assert short_labels([cell]) == {cell.slug: f"debug · {cell.cell_id[:6]}"}
