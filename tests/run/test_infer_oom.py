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


def oom(planned, code="oom.device", attempt=1):
    return make_record(planned.cell, "oom", code, "no", attempt=attempt)


def test_the_smallest_that_ran_out_decides():
    inference = OomInference([cell(4)], {cell(4).cell.slug: oom(cell(4))})
    assert inference.refusal(cell(2), 0.0) is None and inference.refusal(cell(4), 0.0) is None
    assert inference.refusal(cell(8), 0.0).flags == ["inferred"]
    assert inference.refusal(cell(8, seed=1), 0.0) is None
    inference.learn(cell(2), oom(cell(2), "oom.disguised"))
    inference.learn(cell(3), oom(cell(3)))
    assert f"{cell(2).cell.slug}, the same cell with micro_batch_size=2" in inference.refusal(cell(4), 0.0).reason


def test_what_decides_nothing():
    inference = OomInference([], {})
    for code, attempt in (("oom.host", 1), ("failed.signal", 1), ("oom.device", 0)):
        inference.learn(cell(2), oom(cell(2), code, attempt))
    assert inference.refusal(cell(4), 0.0) is None
