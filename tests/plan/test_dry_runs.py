from dataclasses import replace

import pytest

from benchrunner.plan import dry_runs
from benchrunner.plan.kept import Model
from benchrunner.plan.memory import peak_memory
from benchrunner.plan.predict import predict
from samples import H200, make_cell, plan_cell


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


def test_a_compiled_cell_is_its_eager_twin_and_the_difference(answered):
    one = planned(compile="inductor")
    [found] = answered(ANSWER, one)
    eager = make_cell(leaves={"predict.name": "dry_run"})
    change = peak_memory(one.cell).total_bytes - peak_memory(eager).total_bytes
    assert (found["method"], found["peak_memory_bytes"]) == ("dry_run+analytic", 2**30 + change)
    assert change < 0
    block = Model(one.cell.config, one.cell.sizes).block
    [same] = answered(ANSWER | {"compiled_block_bytes": int(block.saved)}, one)
    [more] = answered(ANSWER | {"compiled_block_bytes": int(block.saved) + 1000}, one)
    assert abs(same["peak_memory_bytes"] - found["peak_memory_bytes"]) <= 4
    assert more["peak_memory_bytes"] - same["peak_memory_bytes"] == 1000 * one.cell.config.model.num_layers


def test_what_is_refused_keeps_its_arithmetic_and_says_why(answered):
    one = planned(engine="fabric")
    [found] = answered({"refused": "engine fabric is not modelled"}, one)
    assert found == one.predicted | {"note": "no dry run: engine fabric is not modelled"}


def test_a_compiled_cell_that_recomputes_is_not_asked(monkeypatch):
    """Seen on H200s: the eager twin's peak lies in temporaries that the compiled backward pass does not make."""
    monkeypatch.setattr(dry_runs.dry_runs, "dry_run", None)
    one = planned(compile="inductor", activation_checkpointing="full")
    [found] = dry_runs.apply_dry_runs([one], H200)
    note = "no dry run: the peak of a compiled block that is recomputed is the compiler's"
    assert found.predicted == one.predicted | {"note": note}
    assert not dry_runs.is_rewritten(planned(compile="inductor", workload="forward").cell)
    assert not dry_runs.is_rewritten(planned(activation_checkpointing="full").cell)


def test_lengths_of_a_generation_are_asked():
    short, long = (planned(workload="generate", leaves={"generate.new_tokens": n}).cell for n in (8, 800))
    assert dry_runs.question_of(short) != dry_runs.question_of(long)


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


def test_the_longest_micro_batch_is_what_is_asked():
    lengths = {"workload.lengths": "alpaca", "workload.longest": 70, "seq_len": 120}
    assert dry_runs.question_of(make_cell(leaves=lengths))["sizes"]["seq_len"] == 70
    assert dry_runs.question_of(make_cell())["sizes"]["seq_len"] == 128
