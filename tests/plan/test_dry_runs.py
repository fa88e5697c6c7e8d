from dataclasses import replace

import pytest

from benchrunner.plan import dry_runs
from benchrunner.plan.kept import Model
from benchrunner.plan.memory import peak_memory
from benchrunner.plan.predict import predict
from samples import CPU, H200, make_cell, plan_cell


def planned(**axes):
    leaves = {"predict.name": "dry_run", **axes.pop("leaves", {})}
    cell = make_cell(leaves=leaves, **axes)
    return replace(plan_cell(cell), predicted=predict(cell, H200))


@pytest.fixture
def answered(monkeypatch):
    """Apply dry runs that answer with what is given; returns the predictions."""

    def apply(answer, *cells):
        monkeypatch.setattr(dry_runs.dry_runs, "dry_run", lambda questions, torch, tell: [answer] * len(questions))
        return [one.predicted for one in dry_runs.apply_dry_runs(cells, H200)]

    return apply


ANSWER = {
    "peak_memory_bytes": 2**30, "reserved_memory_bytes": 2**31, "least_memory_bytes": 2**30, "phase": "backward",
    "terms": {},
}  # fmt: skip


def test_an_eager_cell_takes_the_answer_and_keeps_its_time(answered):
    one = planned()
    [found] = answered(ANSWER, one)
    assert (found["method"], found["peak_memory_bytes"], found["fit"]) == ("dry_run", 2**30, "fits")
    assert found["step_time_s"] == one.predicted["step_time_s"]
    assert (found["reserved_memory_bytes"], found["least_memory_bytes"]) == (2**31, 2**30)
    assert (found["margin"], found["phase"]) == (0.03, "backward")


def test_a_compiled_cell_is_its_eager_twin_and_the_difference(answered):
    one = planned(compile="inductor")
    [found] = answered(ANSWER, one)
    eager = make_cell(leaves={"predict.name": "dry_run"})
    change = peak_memory(one.cell).total_bytes - peak_memory(eager).total_bytes
    assert (found["method"], found["peak_memory_bytes"]) == ("dry_run+analytic", 2**30 + change)
    assert change < 0 and found["margin"] == 0.04
    assert (found["reserved_memory_bytes"], found["least_memory_bytes"]) == (2**31 + change, 2**30 + change)
    block = Model(one.cell.config, one.cell.sizes).block
    [same] = answered(ANSWER | {"compiled_block_bytes": int(block.saved)}, one)
    [more] = answered(ANSWER | {"compiled_block_bytes": int(block.saved) + 1000}, one)
    assert abs(same["peak_memory_bytes"] - found["peak_memory_bytes"]) <= 4
    assert more["peak_memory_bytes"] - same["peak_memory_bytes"] == 1000 * one.cell.config.model.num_layers


def test_what_is_refused_keeps_its_arithmetic_and_says_why(answered):
    one = planned(engine="fabric")
    [found] = answered({"refused": "engine fabric is not modelled"}, one)
    assert found == one.predicted | {"note": "no dry run: engine fabric is not modelled"}
    noted = replace(one, predicted=one.predicted | {"note": "not modelled: this"})
    [found] = answered({"refused": "no"}, noted)
    assert found["note"] == "no dry run: no; not modelled: this"


def test_what_no_fused_kernel_takes_on_its_device_is_not_asked(answered):
    groups = planned(precision="fp32")
    assert groups.cell.config.model.num_kv_heads < groups.cell.config.model.num_heads
    [found] = answered(ANSWER, groups)
    assert "fp32 in groups of heads" in found["note"] and found["method"] == "analytic"
    heads = planned(precision="fp32", leaves={"model.num_kv_heads": groups.cell.config.model.num_heads})
    named = planned(precision="fp32", leaves={"attention": "explicit"})
    for one in (planned(precision="bf16"), heads, named):
        [found] = answered(ANSWER, one)
        assert found["method"] == "dry_run"
    [on_cpu] = dry_runs.apply_dry_runs([groups], CPU)
    assert on_cpu.predicted["method"] == "dry_run"


def test_a_compiled_cell_that_recomputes_is_not_asked(monkeypatch):
    """Seen on H200s: the eager twin's peak lies in temporaries that the compiled backward pass does not make."""
    monkeypatch.setattr(dry_runs.dry_runs, "dry_run", None)
    one = planned(compile="inductor", activation_checkpointing="full")
    [found] = dry_runs.apply_dry_runs([one], H200)
    note = "no dry run: the peak of a compiled block that is recomputed is the compiler's"
    assert found.predicted == one.predicted | {"note": note}
    assert not dry_runs.is_rewritten(planned(compile="inductor", workload="forward").cell)
    assert not dry_runs.is_rewritten(planned(activation_checkpointing="full").cell)


@pytest.mark.parametrize(
    ("leaf", "values", "axes"),
    [("generate.new_tokens", (8, 800), {"workload": "generate"}), ("attention", ("auto", "explicit"), {})],
)
def test_what_changes_the_answer_is_asked(leaf, values, axes):
    one, other = (planned(**axes, leaves={leaf: value}).cell for value in values)
    assert dry_runs.question_of(one) != dry_runs.question_of(other)


def test_several_nodes_are_asked_about_as_so_many_devices_of_one():
    leaves = {"devices": 2, "nodes": 3, "launcher.name": "slurm"}
    asked = dry_runs.question_of(make_cell(strategy="ddp", leaves=leaves))
    assert [asked["sizes"][name] for name in ("devices", "nodes", "world_size")] == [6, 1, 6]


def test_the_dry_run_is_of_the_torch_of_the_machine_and_tells_how_far_it_is(monkeypatch, capsys):
    def dry_run(questions, torch, tell):
        tell(1, len(questions))
        return [{"refused": f"by {torch}"}] * len(questions)

    monkeypatch.setattr(dry_runs.dry_runs, "dry_run", dry_run)
    beside = plan_cell(make_cell())
    first, second = dry_runs.apply_dry_runs([planned(), beside], H200)
    assert first.predicted["note"] == "no dry run: by 2.11.0+cu130" and second is beside
    assert capsys.readouterr().err == "dry runs: 1 of 1\n"


def test_only_cells_that_run_and_ask_are_asked(answered):
    others = [replace(planned(), verdict="unsupported"), plan_cell(make_cell())]
    assert answered(None, *others) == [one.predicted for one in others]


def test_of_a_search_the_first_probe_is_asked(monkeypatch):
    asked = []
    monkeypatch.setattr(dry_runs.dry_runs, "dry_run", lambda questions, *_: asked.extend(questions) or [ANSWER])
    one = planned(leaves={"micro_batch_size": "max"})
    search = replace(one, predicted=one.predicted | {"micro_batch_size": 12})
    [found] = dry_runs.apply_dry_runs([search], H200)
    assert asked == [dry_runs.question_of(make_cell(leaves={"predict.name": "dry_run", "micro_batch_size": 12}))]
    assert (found.predicted["method"], found.predicted["peak_memory_bytes"]) == ("dry_run", 2**30)
    assert found.predicted["micro_batch_size"] == 12


def test_what_cannot_change_the_answer_is_not_asked():
    one, other = (planned(leaves={"measure.steps": steps, "seed": steps}).cell for steps in (3, 4))
    assert dry_runs.question_of(one) == dry_runs.question_of(other)
    modes = ("default", "max-autotune")
    one, other = (planned(compile="inductor", leaves={"compile.mode": mode}).cell for mode in modes)
    assert dry_runs.question_of(one) == dry_runs.question_of(other)
    assert dry_runs.question_of(one)["config"]["compile"]["name"] == "inductor"


def test_the_longest_micro_batch_is_what_is_asked():
    lengths = {"workload.lengths": "alpaca", "workload.longest": 70, "seq_len": 120}
    assert dry_runs.question_of(make_cell(leaves=lengths))["sizes"]["seq_len"] == 70
    assert dry_runs.question_of(make_cell())["sizes"]["seq_len"] == 128
