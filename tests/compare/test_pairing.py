from dataclasses import replace

from benchrunner.compare.pairing import CellPair
from benchrunner.compare.side import MeasuredCell
from samples import make_cell, make_record, plan_cell


def search(size):
    cell = make_cell(leaves={"micro_batch_size": "max"})
    found = {"search": {"kind": "max", "micro_batch_size": size, "probes": []}}
    return MeasuredCell(planned=plan_cell(cell), records=[make_record(cell, metrics={}, evidence=found)])


def test_a_search_that_finds_another_size_says_so():
    assert CellPair(base=search(12), new=search(8)).obstacle == "the search found 12 before, and 8 now"
    assert CellPair(base=search(12), new=search(12)).obstacle is None


def test_other_sizes_are_named():
    small, large = (make_cell(leaves={"seed": 1}), make_cell(leaves={"seed": 1}))
    large = replace(large, sizes=replace(large.sizes, world_size=4))
    pair = [MeasuredCell(planned=plan_cell(cell), records=[make_record(cell)]) for cell in (small, large)]
    assert CellPair(base=pair[0], new=pair[1]).obstacle == "another size: world_size 1 → 4"
