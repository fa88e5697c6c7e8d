import pytest

from benchrunner.core.paths import SweepPaths
from benchrunner.launch.fake import Script
from benchrunner.run.infer_oom import OomInference
from fake_sweeps import ERROR, OK, OOM, record, run
from samples import make_cell, make_record, plan_cell


def cell(size, seed=0, **axes):
    return plan_cell(make_cell(leaves={"micro_batch_size": size, "seed": seed}, **axes))


def oom(planned, code="oom.device", attempt=1):
    return make_record(planned.cell, "oom", code, "no", attempt=attempt)


def test_the_smallest_that_ran_out_decides():
    inference = OomInference([cell(4)], {cell(4).cell.slug: oom(cell(4))})
    assert inference.refusal(cell(2), 0.0) is None and inference.refusal(cell(4), 0.0) is None
    inferred, smaller = inference.refusal(cell(8), 0.0), cell(4).cell
    assert inferred.flags == ["inferred"]
    assert inferred.evidence == {"inferred_from": smaller.slug, "cell_id": smaller.cell_id}
    assert inference.refusal(cell(8, seed=1), 0.0) is None
    inference.learn(cell(2), oom(cell(2), "oom.disguised"))
    inference.learn(cell(3), oom(cell(3)))
    assert f"{cell(2).cell.slug}, the same cell with micro_batch_size=2" in inference.refusal(cell(4), 0.0).reason


def test_what_decides_nothing():
    inference = OomInference([], {})
    for code, attempt in (("oom.host", 1), ("failed.signal", 1), ("oom.device", 0)):
        inference.learn(cell(2), oom(cell(2), code, attempt))
    assert inference.refusal(cell(4), 0.0) is None


# --- through the loop


def batches(*sizes, **leaves):
    return [plan_cell(make_cell(leaves={"micro_batch_size": size} | leaves)) for size in sizes]


def does_not_fit(limit):
    return lambda job: OOM if job.cell.config.micro_batch_size >= limit else OK


def test_a_smaller_batch_that_ran_out_of_memory_decides_the_larger_ones(paths):
    planned = [*batches(16, 1, 8, 2, 4), *batches(8, 16, seed=1)]
    summary, launcher = run(paths, planned, does_not_fit(4))
    assert summary.counts == {"ok": 2, "oom": 5} and summary.exit_code == 0
    ran = [(handle.job.cell.config.micro_batch_size, handle.job.cell.config.seed) for handle in launcher.handles]
    assert ran == [(1, 0), (8, 1), (2, 0), (4, 0)]
    made = record(paths, planned[0])
    assert (made["status"], made["reason_code"], made["attempt"]) == ("oom", "oom.device", 0)
    assert "inferred" in made["flags"] and planned[4].cell.slug in made["reason"]
    assert made["evidence"]["inferred_from"] == planned[4].cell.slug


def test_inference_can_be_refused_and_taken_back(paths):
    planned = batches(1, 2, 4)
    run(paths, planned, does_not_fit(2))
    assert run(paths, planned, resume=True)[1].handles == []
    _, launcher = run(paths, planned, resume=True, infer=False)
    assert [handle.job.cell.config.micro_batch_size for handle in launcher.handles] == [4]
    assert record(paths, planned[2])["status"] == "ok"
    _, launcher = run(SweepPaths(paths.root / "all"), planned, does_not_fit(2), infer=False)
    assert len(launcher.handles) == 3


def test_a_verdict_from_before_decides_too_but_not_one_under_a_fault(paths):
    first, more = batches(2), batches(2, 4)
    run(paths, first, OOM)
    assert run(paths, more, resume=True)[0].counts == {"oom": 2}
    other = SweepPaths(paths.root / "other")
    run(other, first, OOM, fault="oom")
    assert len(run(other, more, OK, resume=True)[1].handles) == 2


def test_a_verdict_that_is_inferred_names_the_fault_that_is_planted_in_its_cell(paths):
    planned = batches(1, 2)
    run(paths, planned, OOM, fault=f"oom/{planned[1].cell.slug}")
    assert [record(paths, one)["fault"] for one in planned] == [None, f"oom/{planned[1].cell.slug}"]


@pytest.mark.parametrize(
    "script", [Script(errors={0: ERROR | {"type": "MemoryError", "kind": "oom"}}), Script(exits={0: -9})]
)
def test_only_device_memory_decides(paths, script):
    planned = batches(1, 2)
    _, launcher = run(paths, planned, {planned[0].cell.slug: script})
    assert len(launcher.handles) == 2
