from benchrunner.run.infer_oom import OomInference
from benchrunner.run.order import family, smaller_first, smaller_first_in_place
from samples import make_cell, make_record, plan_cell


def cell(size, seed=0, **axes):
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


def test_the_smallest_that_ran_out_decides():
    inference = OomInference([cell(4)], {cell(4).cell.slug: make_record(cell(4).cell, "oom", "oom.device", "no")})
    assert inference.verdict(cell(2)) is None and inference.verdict(cell(4)) is None
    assert inference.verdict(cell(8)).flags == ["inferred"]
    assert inference.verdict(cell(8, seed=1)) is None
    assert inference.learn(cell(2), make_record(cell(2).cell, "oom", "oom.disguised", "no"))
    assert f"{cell(2).cell.slug}, the same cell with micro_batch_size=2" in inference.verdict(cell(4)).reason


def test_what_decides_nothing():
    inference = OomInference([], {})
    for code, attempt in (("oom.host", 1), ("failed.signal", 1), ("oom.device", 0)):
        assert not inference.learn(cell(2), make_record(cell(2).cell, "oom", code, "no", attempt=attempt))
    assert inference.verdict(cell(4)) is None
