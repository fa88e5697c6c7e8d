"""Overrides stay where they mean something; what no cell reads is refused where somebody asked for it."""

from dataclasses import replace
from itertools import pairwise

import pytest

from benchrunner.config import hydra_app
from benchrunner.config.matrix import Row
from benchrunner.core.axes import AXES
from benchrunner.core.errors import ConfigError
from benchrunner.core.paths import config_dir
from benchrunner.plan.planner import make_plan
from benchrunner.plan.rules import load_rules
from benchrunner.plan.unread import leave_out_unread, usual_options
from samples import CPU, H200, USUAL, defaults, make_cell, option

CHECKPOINTING = "activation_checkpointing"
RULES = load_rules(config_dir() / "compat.yaml")


def planned(overrides, hardware=CPU, sweep_file=None):
    """The plan of a matrix."""
    expansion = hydra_app.expand(overrides.split(), multirun=True, sweep_file=sweep_file)
    return make_plan(expansion, hardware, RULES)


def cells(overrides, *axes, hardware=CPU):
    """Of each cell its options of these axes, its changed leaves, what was left out and the code of its verdict."""
    return [
        (*(one.cell.axes[axis] for axis in axes), dict(one.cell.overrides), one.left_out, one.reason_code)
        for one in planned(overrides, hardware).cells
    ]


def test_single_runs_on_one_device_beside_ddp_on_two():
    assert cells("strategy=single,ddp devices=2", "strategy") == [
        ("single", {}, ("devices=2",), None),
        ("ddp", {"devices": 2}, (), None),
    ]


def test_eager_runs_beside_a_whole_compiled_model():
    assert cells("compile=eager,inductor compile.scope=model", "compile") == [
        ("eager", {}, ("compile.scope=model",), None),
        ("inductor", {"compile.scope": "model"}, (), None),
    ]


@pytest.mark.parametrize(
    ("overrides", "axis", "deaf", "hears"),
    [
        ("precision=bf16,fp8-torchao precision.recipe=rowwise", "precision", "bf16", "fp8-torchao"),
        ("precision=bf16,fp8-torchao precision.pad=true", "precision", "bf16", "fp8-torchao"),
        ("workload=lora precision=bf16,nf4 precision.scope=blocks", "precision", "bf16", "nf4"),
        ("compile=eager,inductor compile.mode=max-autotune", "compile", "eager", "inductor"),
        ("compile=eager,inductor compile.dynamic=true", "compile", "eager", "inductor"),
        ("compile=eager,inductor compile.fullgraph=true", "compile", "eager", "inductor"),
        ("compile=eager,inductor workload=generate generate.unit=token", "compile", "eager", "inductor"),
        ("strategy=ddp,fsdp strategy.wrap=module", "strategy", "ddp", "fsdp_stage3"),
        ("strategy=single,ddp strategy.accumulation_sync=every", "strategy", "single", "ddp"),
        ("optimizer=sgd,adamw optimizer.fused=false", "optimizer", "sgd", "adamw"),
        ("precision=fp32,bf16-mixed strategy.mixed_precision_by=autocast", "precision", "fp32", "bf16-mixed"),
        (f"{CHECKPOINTING}=none,selective {CHECKPOINTING}.every=1/4", CHECKPOINTING, "none", "selective"),
        ("workload=train,generate generate.new_tokens=20", "workload", "train", "generate"),
        ("workload=train,lora workload.lora_rank=4", "workload", "train", "lora"),
        ("workload=train,adapter workload.adapter_start_layer=1", "workload", "train", "adapter"),
        ("workload=forward,train workload.loss_chunk_tokens=64", "workload", "forward", "train"),
        ("workload=forward,train workload.lengths=uniform", "workload", "forward", "train"),
        ("workload=forward,train optimizer.lr=0.5", "workload", "forward", "train"),
        ("workload=forward,train model.dropout=0.1", "workload", "forward", "train"),
        ("workload=generate,train global_batch_size=4", "workload", "generate", "train"),
    ],
)  # fmt: skip
def test_every_setting_that_only_some_options_read(overrides, axis, deaf, hears):
    one, other = sorted(planned(overrides).cells, key=lambda planned: planned.cell.axes[axis] != deaf)
    word = overrides.split()[-1]
    assert (one.cell.axes[axis], one.left_out) == (deaf, (word,)) and word not in one.cell.as_overrides()
    assert (other.cell.axes[axis], other.left_out) == (hears, ()) and word.partition("=")[0] in other.cell.overrides
    assert one.verdict == "run", one.reason


def test_options_too_stay_where_they_mean_something():
    assert cells("workload=train,forward optimizer=sgd activation_checkpointing=full", "workload", *AXES[-3:]) == [
        ("train", "full", "native", "sgd", {}, (), None),
        ("forward", "none", "native", "adamw", {}, ("activation_checkpointing=full", "optimizer=sgd"), None),
    ]


def test_cells_that_become_the_same_are_one_and_a_line_says_so():
    plan = planned("compile=eager,inductor compile.scope=block,model")
    assert [(one.cell.axes["compile"], one.left_out) for one in plan.cells] == [
        ("eager", ()), ("inductor", ()), ("inductor", ()),
    ]  # fmt: skip
    assert plan.notes == ("1 combination is the same as another, without overrides that it does not read",)
    assert len({one.cell.cell_id for one in plan.cells}) == 3


def test_one_device_is_what_single_has_anyway():
    assert [code for *_, code in cells("strategy=single,ddp devices=1,2", "strategy")] == [None] * 3
    assert cells("strategy=single,ddp devices=1,2", "strategy")[0] == ("single", {"devices": 1}, (), None)


def test_what_no_cell_reads_is_refused_where_somebody_asked_for_it():
    assert cells("strategy=single devices=1,2") == [
        ({"devices": 1}, (), None),
        ({"devices": 2}, (), "rule.single_device"),
    ]
    assert cells("compile.scope=model") == [({"compile.scope": "model"}, (), "rule.scope_is_compiled")]
    assert cells("workload=forward activation_checkpointing=none,full")[1][2] == "rule.no_backward"


def test_a_value_that_is_usual_where_it_is_read_is_read_there():
    """`blocks` is what fp8-torchao does anyway, so nothing of its cell is changed."""
    assert [one.left_out for one in planned("precision=bf16,fp8-torchao precision.scope=blocks").cells] == [
        ("precision.scope=blocks",), (),
    ]  # fmt: skip


def test_a_harmless_setting_that_no_cell_reads_is_left_out_and_named():
    plan = planned("workload.lora_rank=4,16")
    assert [dict(one.cell.overrides) for one in plan.cells] == [{}]
    assert plan.notes[0] == "workload.lora_rank=4, workload.lora_rank=16: no cell reads this, so it is left out"


FORMULA = "predict.formula=llm-analysis-2023"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("predict.tensor=2", f"predict.tensor: no prediction takes up predict.tensor=2: it is of {FORMULA} alone; add"),
        ("predict=only predict.scheme=w8a8e16", f"predict.scheme: .* of {FORMULA} alone; add that, or leave it out"),
        (
            "predict=off predict.skip_oom=true",
            "predict.skip_oom: .*predict=off predicts nothing; predict=analytic pred",
        ),
        (f"predict=off {FORMULA}", "predict.formula: .*predict=off predicts nothing"),
    ],
)
def test_a_question_that_no_prediction_takes_up_is_refused(words, message):
    with pytest.raises(ConfigError, match=message):
        planned(words)


def test_a_question_stays_with_the_predictions_that_take_it_up():
    found = planned("predict=only predict.formula=own,llm-analysis-2023 predict.tensor=2").cells
    assert [one.left_out for one in found] == [("predict.tensor=2",), ()]
    assert [one.cell.config.predict.tensor for one in found] == [1, 2]


def test_a_question_of_a_sweep_file_is_left_out_and_named(tmp_path):
    file = tmp_path / "asked.yaml"
    file.write_text("# @package _global_\nhydra: {mode: MULTIRUN}\npredict: {formula: llm-analysis-2023, tensor: 2}\n")
    assert planned(FORMULA, sweep_file=file).notes == ()
    plan = planned("predict.formula=own", sweep_file=file)
    assert plan.notes == ("predict.tensor=2: no cell reads this, so it is left out",)


def test_a_sweep_file_can_say_more_than_a_narrowed_sweep_reads(tmp_path):
    file = tmp_path / "both.yaml"
    file.write_text(
        "# @package _global_\nhydra: {mode: MULTIRUN, sweeper: {params: {compile: 'eager,inductor'}}}\n"
        "compile: {scope: model}\nstrategy: {wrap: module}\n"
    )
    assert [one.verdict for one in planned("compile=eager", sweep_file=file).cells] == ["run"]
    assert [one.left_out for one in planned("compile=eager", sweep_file=file).cells] == [
        ("strategy.wrap=module", "compile.scope=model")
    ]


def test_a_struck_out_row_is_as_it_was_written(tmp_path):
    file = tmp_path / "struck.yaml"
    file.write_text(
        "# @package _global_\nhydra: {mode: MULTIRUN, sweeper: {params: {strategy: 'single,ddp', devices: '2'}}}\n"
        "sweep: {exclude: [{match: {strategy: single, devices: 2}, reason: not today}]}\n"
    )
    first, _ = planned("", sweep_file=file).cells
    assert (first.reason_code, first.left_out, dict(first.cell.overrides)) == ("skipped.excluded", (), {"devices": 2})


def test_what_is_read_gives_the_id_that_it_would_have_alone():
    beside = {one.cell.axes["compile"]: one.cell for one in planned("compile=eager,inductor compile.scope=model").cells}
    (alone,) = planned("compile=eager").cells
    assert beside["eager"].cell_id == alone.cell.cell_id and beside["eager"].config_digest == alone.cell.config_digest
    assert beside["eager"].slug == alone.cell.slug


def test_sections_stay_shared():
    """Plans of thousands of cells stand on it."""
    plan = planned("compile=eager compile.scope=model seed=1,2,3 workload=train,generate generate.unit=token")
    for one, other in pairwise(one for one in plan.cells if one.cell.axes["workload"] == "train"):
        assert one.cell.config.generate is other.cell.config.generate


def test_fsdp_settings_of_the_other_engine():
    words = "engine=native,fabric strategy=fsdp strategy.backward_prefetch=pre"
    assert [one.left_out for one in planned(words, H200).cells] == [("strategy.backward_prefetch=pre",), ()]


def test_the_usual_options_are_those_of_a_bare_bench():
    assert usual_options() == USUAL


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule.unread], ids=lambda rule: rule.id)
def test_rules_about_what_is_not_read_name_what_they_are_about(rule):
    named = {condition.key for condition in rule.conditions}
    assert rule.is_silent or named & set(rule.unread) or rule.id in ("single_device", "generate_accumulation")


# --- rows that are made by hand


def row_of(excluded=None, **given):
    cell = make_cell(**given)
    return Row(axes=cell.axes, overrides=cell.overrides, config=cell.config, excluded_reason=excluded)


def read(rows, *stated, hardware=CPU, rules=RULES):
    """The rows without what they do not read; `stated`: keys that the command line says."""

    def section(group, name):
        return option(group, name) if name else defaults()[group]

    expansion = hydra_app.Expansion(
        rows=rows, sweep_name="mine", arguments=[], stated=frozenset(stated), untouched=section
    )
    return leave_out_unread(expansion, hardware, rules)


def left_out(rows, *stated, **how):
    return [one.left_out for one in read(rows, *stated, **how).rows]


def test_a_row_without_what_it_does_not_read_is_the_one_that_never_said_it():
    leaves = {"devices": 2, "compile.mode": "max-autotune", "generate.new_tokens": 9, "seed": 5}
    alone, plain = row_of(leaves=leaves), row_of(leaves={"seed": 5})
    reads = row_of(strategy="ddp", compile="inductor", leaves=leaves)
    found = read([alone, reads]).rows
    words = {"devices=2", "compile.mode=max-autotune", "generate.new_tokens=9"}
    assert set(found[0].left_out) == words and found[0].row == plain
    assert found[1].left_out == ("generate.new_tokens=9",) and found[1].row.overrides == {
        key: value for key, value in leaves.items() if key != "generate.new_tokens"
    }


def test_rows_go_on_sharing_what_was_given_back():
    one = row_of(leaves={"generate.new_tokens": 9, "seed": 5})
    other = replace(one, overrides={**one.overrides, "seed": 6}, config=replace(one.config, seed=6))
    first, second = (found.row.config for found in read([one, other]).rows)
    assert first.generate is second.generate and (first.seed, second.seed) == (5, 6)


def test_a_row_that_reads_all_that_it_says_stays_itself():
    rows = [row_of(), row_of(strategy="ddp", leaves={"devices": 2}), row_of("no", leaves={"devices": 2})]
    assert [one.row for one in read(rows).rows] == rows
    assert all(one.row is row for one, row in zip(read(rows).rows, rows, strict=True))


def test_an_option_that_is_not_read_takes_its_settings_with_it():
    leaves = {"optimizer.fused": False, "seed": 5, "global_batch_size": 4}
    forward, trains = (row_of(workload=name, optimizer="paged-adamw", leaves=leaves) for name in ("forward", "train"))
    found, _ = read([forward, trains], hardware=H200).rows
    assert "optimizer=paged-adamw" in found.left_out
    assert found.row == row_of(workload="forward", leaves={"seed": 5, "global_batch_size": 4})


@pytest.mark.parametrize(
    ("others", "stated", "expected"),
    [
        ([], ["compile.scope"], ()),
        ([], [], ("compile.scope=model",)),
        ([row_of(compile="inductor")], ["compile.scope"], ("compile.scope=model",)),
        ([row_of(strategy="ddp")], ["compile.scope"], ()),
    ],
)
def test_what_the_command_line_says_stays_unless_another_cell_reads_it(others, stated, expected):
    assert left_out([row_of(leaves={"compile.scope": "model"}), *others], *stated)[0] == expected


def test_combinations_that_are_the_same_cell_are_counted_and_the_first_stays():
    modes = [{"compile.mode": mode} for mode in ("max-autotune", "reduce-overhead")]
    deaf, reads = ([row_of(compile=name, leaves=mode) for mode in modes] for name in ("eager", "inductor"))
    found = read([*deaf, *reads])
    assert [one.left_out for one in found.rows] == [("compile.mode=max-autotune",), (), ()]
    assert found.notes == ["1 combination is the same as another, without overrides that it does not read"]
    found = read([*deaf, row_of(), *reads])
    assert [one.left_out for one in found.rows] == [(), (), ()], "the one that says nothing of it"
    assert found.notes == ["2 combinations are the same as another, without overrides that it does not read"]
    assert len(read([row_of(), row_of()]).rows) == 2, "what was written twice is not merged here"


def test_one_device_and_one_node_are_what_single_has():
    rows = [row_of(leaves=leaves) for leaves in ({"devices": 1, "nodes": 1}, {"nodes": 2}, {"devices": 2})]
    others = [row_of(strategy="ddp", leaves=leaves) for leaves in ({"devices": 1}, {"nodes": 2}, {})]
    found = read([*rows, *others]).rows
    assert [dict(one.row.overrides) for one in found] == [
        {"devices": 1, "nodes": 1}, {"devices": 1}, {"nodes": 2}, {},
    ]  # fmt: skip


def test_what_no_cell_reads_is_named_once():
    rows = [row_of(leaves={"workload.lora_rank": 4, "seed": seed}) for seed in (1, 2)]
    assert read(rows).notes == ["workload.lora_rank=4: no cell reads this, so it is left out"]
    assert read([*rows, row_of(workload="lora")]).notes == []


def test_a_question_is_refused_only_where_the_command_line_asks_it():
    row = row_of(leaves={"predict.tensor": 2})
    assert left_out([row]) == [("predict.tensor=2",)]
    with pytest.raises(ConfigError) as caught:
        read([row], "predict.tensor")
    assert caught.value.key == "predict.tensor"
    formula = row_of(leaves={"predict.formula": "llm-analysis-2023", "seed": 5})
    assert left_out([row, formula], "predict.tensor") == [("predict.tensor=2",), ()]
    silent = row_of(leaves={"workload.lora_rank": 4})
    assert left_out([silent], "workload.lora_rank") == [("workload.lora_rank=4",)], "no question"


@pytest.mark.parametrize(
    ("leaves", "stated", "said"),
    [
        ({"predict.tensor": 2}, "predict.tensor",
         f"no prediction takes up predict.tensor=2: it is of {FORMULA} alone; add that, or leave it out"),
        ({"predict.name": "off", "predict.skip_oom": True}, "predict.skip_oom",
         "no prediction takes up predict.skip_oom=true: predict=off predicts nothing; predict=analytic predicts"),
    ],
)  # fmt: skip
def test_a_refusal_says_what_would_take_it_up(leaves, stated, said):
    with pytest.raises(ConfigError) as caught:
        read([row_of(leaves=leaves)], stated)
    assert f"{stated}: {said}" in str(caught.value)


def test_keys_are_read_by_one_row_or_another():
    leaves = {"devices": 2, "compile.scope": "model"}
    rows = [row_of(strategy="ddp", leaves=leaves), row_of(compile="inductor", leaves=leaves)]
    assert left_out(rows, *leaves) == [("compile.scope=model",), ("devices=2",)]


def test_an_option_is_not_read_by_a_row_that_has_the_usual_one():
    rows = [row_of(workload="forward", activation_checkpointing=name) for name in ("full", "none")]
    assert left_out(rows, "activation_checkpointing") == [(), ()]


def test_what_is_not_read_may_depend_on_the_machine(tmp_path):
    path = tmp_path / "compat.yaml"
    path.write_text("- {id: a, match: {device_type: cpu}, unread: [seed]}\n")
    row = row_of(leaves={"seed": 5})
    for stated in ((), ("seed",)):
        assert left_out([row], *stated, rules=load_rules(path)) == [("seed=5",)]
        assert left_out([row], *stated, rules=load_rules(path), hardware=H200) == [()]


def test_other_settings_of_a_section_stay_each_rows_own():
    leaves = [{"model.dropout": 0.1, "model.num_layers": number} for number in (2, 3)]
    rows = [row_of(workload="forward", optimizer="paged-adamw", leaves=one) for one in leaves]
    first, second = (found.row.config for found in read(rows, hardware=H200).rows)
    assert [(one.model.dropout, one.model.num_layers) for one in (first, second)] == [(0.0, 2), (0.0, 3)]
    assert first.optimizer is second.optimizer
