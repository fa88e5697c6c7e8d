"""The declared sweeps hold what their headers say."""

import itertools
import re
from dataclasses import replace

import pytest

from benchrunner.config import keys
from benchrunner.config.hydra_app import expand, list_options, sweeps
from benchrunner.core.axes import AXES, NOT_IDENTITY
from benchrunner.core.errors import ConfigError, UsageError
from benchrunner.core.paths import config_dir
from benchrunner.core.schema import value_at
from benchrunner.plan.planner import make_plan
from benchrunner.plan.rules import load_rules
from declared import declared
from samples import CPU

SWEEPS = sorted((config_dir() / "sweeps").glob("*.yaml"))
RULES = load_rules(config_dir() / "compat.yaml")
CHOICES = {key: allowed.choices for key, allowed in keys.allowed_values().items() if allowed.choices}
ANY_CPU = replace(CPU, is_present=False)
"""Every library is assumed."""
SMOKE_AXES = ("strategy", "precision", "compile", "activation_checkpointing")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("strategy: [fsdp, ddp]", "under hydra.sweeper.params write strategy: fsdp,ddp"),
        (
            "precision: fp32",
            "^precision: 'fp32' is no section; under hydra.sweeper.params write precision: fp32, or under defaults: "
            "- override /precision: OPTION$",
        ),
        ("params: {strategy: 'fsdp,ddp'}", "params: belongs under hydra.sweeper.params"),
        ("include: [{strategy: ddp}]", "include: belongs under sweep.include"),
        (
            "hydra: {sweeper: {params: {strategy: [fsdp, ddp]}}}",
            "^strategy: a list of YAML is no sweep; write strategy: fsdp,ddp$",
        ),
        ("seq_lenn: 5", "did you mean seq_len"),
        ("hydra: nothing", "^hydra: 'nothing' is no section; below hydra.sweeper.params stand lines KEY: VALUE,VALUE$"),
        ("hydra:", "^hydra: None is no section"),
        ("hydra: {sweeper: 5}", "^hydra.sweeper: 5 is no section"),
        ("hydra:\n  sweeper:", "^hydra.sweeper: None is no section"),
        ("hydra: {sweeper: {params: [strategy=ddp]}}", r"^hydra.sweeper.params: \['strategy=ddp'\] is no section"),
        ("defaults:", "^defaults: None is no list of lines - override /GROUP: OPTION$"),
        ("defaults: {override /strategy: ddp}", "^defaults: .*'ddp'} is no list of lines"),
        ("defaults: [5]", "^defaults: 5 is no line - override /GROUP: OPTION$"),
        ("defaults: [{}]", "^defaults: {} is no line"),
        ("defaults: [{override /model: [5]}]", "^defaults: .* is no line"),
        ("defaults: [{5: debug}]", "^defaults: {5: 'debug'} is no line"),
        ("defaults: [{override /model: 5}]", "^defaults: {'override /model': 5} is no line"),
        ("defaults: [{override /model: debug, override /strategy: ddp}]", "is no line - override /GROUP: OPTION$"),
        ("defaults: [{model: debug}]", "^defaults: model: debug: write - override /model: debug$"),
        ("defaults: [{/precision: bf16}]", "write - override /precision: bf16$"),
        ("sweep: {include: [foo]}", r"^sweep.include: \['foo'\] is no list of rows - {KEY: VALUE, …}"),
        (
            "sweep: {include: [{seed: 1, timeout_s: 5}, {model: debug}, {seed: 1}]}",
            r"^timeout_s: .*sweep.include\[0\] \(timeout_s=5.0\) and sweep.include\[2\] \(without it\) have",
        ),
        ("sweep: {exclude: fp32}", "^sweep.exclude: 'fp32' is no list of rows"),
        ("sweep: {expect: {name: less}}", "^sweep.expect: .* is no list of rows"),
        ("sweep: {include: [{model: [debug, gpt2-125m]}]}", "^sweep.include: model: .* write model: debug,gpt2-125m$"),
        ("defaults: [{override /model: [debug]}]", "^model: override /model: .*: a list is no sweep"),
        ("defaults: [{override model: debug}]", "^defaults: override model: debug: write - override /model: debug$"),
        ("defaults: [{override /modle: debug}]", r"^modle: no such group \(did you mean model\?\); groups: model, "),
        ("model:", "^model: None is no section; under hydra.sweeper.params write model: OPTION, or under defaults: "),
        ("seed: [1, 2]", "^seed: a list of YAML is no sweep; under hydra.sweeper.params write seed: 1,2$"),
        (
            "hydra: {sweeper: {params: {seq_len: }}}",
            "^seq_len: has no value; write seq_len: VALUE, of which 'null' in quotes is none$",
        ),
        (
            "defaults: [{override hydra/launcher: submitit_slurm}]",
            "^hydra/launcher: bench does not run through Hydra's machinery; leave the line out, or write - override ",
        ),
        ("defaults: [{override /hydra: a}]", "^hydra: no such group; groups: model, "),
        ("defaults: [smoke, {/model: debug}]", "^defaults: /model: debug: write - override /model: debug$"),
        ("defaults: [{/sweeps: smoke}]", "^defaults: /sweeps: smoke: write - smoke$"),
        ("defaults: [{override /sweeps: smoke}]", "^sweeps: no such group; groups: model, "),
        ("sweep: {exclude: [{match: [strategy], reason: x}]}", r"^sweep.exclude: .* is not {match: {key: pattern}, "),
        ("sweep: {include: }", "^sweep.include: None is no list of rows"),
        ("sweep: [a]", r"^sweep: \['a'\] is no section; below it stand include, exclude and expect$"),
    ],
)
def test_what_people_write_in_sweep_files(tmp_path, text, message):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        expand([], multirun=False, sweep_file=path)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["+sweeps=smoke", "+sweeps=nightly"], "one sweep at a time: run bench once for each"),
        (["+sweeps=a,b"], "sweeps: a,b: one sweep at a time; run bench once for each"),
        (["+sweeps=[a,b]"], "sweeps: [a,b]: one sweep at a time; run bench once for each"),
        (["sweeps=smoke"], "sweeps: write +sweeps=smoke"),
        (["+sweeps=smokes"], "sweeps: no sweep 'smokes' (did you mean smoke?); allowed: "),
        (["+sweeps=16"], "sweeps: no sweep 16; allowed: "),
    ],
)
def test_what_is_said_of_sweeps_that_are_named(words, message):
    with pytest.raises(UsageError) as refusal:
        expand(words, multirun=False)
    said = str(refusal.value)
    assert said == message or (
        message.endswith(": ") and said.startswith(message) and "(bench list sweeps shows" in said
    )


def test_a_file_beside_a_sweep_that_is_named_is_one_too_many(tmp_path):
    with pytest.raises(UsageError, match=r"^one sweep at a time: run bench once for each$"):
        expand(["+sweeps=smoke"], multirun=False, sweep_file=tmp_path / "mine.yaml")


def test_a_sweep_file_may_have_a_name_that_no_file_can_have(tmp_path):
    with pytest.raises(UsageError, match=r"aaa\.yaml: File name too long$"):
        expand([], multirun=False, sweep_file=tmp_path / f"{'a' * 300}.yaml")
    (tmp_path / "mine.yaml").write_text(f"model: {{name: {'a' * 300}}}")
    with pytest.raises(ConfigError, match=r"^model\.name: 'a+' is no option file$"):
        expand([], multirun=False, sweep_file=tmp_path / "mine.yaml")


@pytest.mark.parametrize("other", ["single", "ddp"])
def test_two_overrides_of_one_group_are_refused_with_their_file(tmp_path, other):
    path = tmp_path / "mine.yaml"
    path.write_text(
        f"defaults: [{{override /model: debug}}, {{override /strategy: ddp}}, {{override /strategy: {other}}}]"
    )
    with pytest.raises(ConfigError) as refusal:
        expand([], multirun=False, sweep_file=path)
    assert str(refusal.value) == (
        f"strategy: {path} overrides it twice under defaults, by ddp and {other}; "
        f"keep one of the lines, or write strategy: ddp,{other} under hydra.sweeper.params"
    )


def test_two_overrides_of_one_group_are_refused_in_a_declared_sweep(monkeypatch):
    lines = [{"override /model": "debug"}, {"override /model": "gpt2-125m"}]
    monkeypatch.setattr(sweeps, "sweep_body", {"smoke": {"defaults": lines}}.__getitem__)
    with pytest.raises(
        ConfigError, match=r"^model: sweeps/smoke\.yaml overrides it twice under defaults, by debug and "
    ):
        expand(["+sweeps=smoke"], multirun=False)


@pytest.mark.parametrize(
    ("entry", "found"),
    [
        ("_self_", None),
        ({"/model": "debug"}, None),
        ({"override /model": "debug"}, ("model", "debug")),
        ({"override  model": "debug"}, ("model", "debug")),
    ],
)
def test_an_override_of_a_defaults_list(entry, found):
    assert sweeps.override_of(entry) == found


def test_parameters_that_are_none_yet_are_none(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("# @package _global_\nhydra:\n  sweeper:\n    params:\nseq_len: 8\n")
    assert [row.config.seq_len for row in expand([], multirun=False, sweep_file=path).rows] == [8]


def test_lists_and_quoted_nulls_are_values_of_sweep_files(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "# @package _global_\nlauncher: {setup: [a, b]}\nhydra: {sweeper: {params: {seq_len: 'null', seed: 3}}}\n"
        "defaults: [_self_, {override  /model: gpt2-125m}]\n"
    )
    [row] = expand([], multirun=False, sweep_file=path).rows
    assert (row.config.launcher.setup, row.config.seq_len, row.config.seed) == (["a", "b"], None, 3)
    assert row.axes["model"] == "gpt2-125m"


def test_rows_of_the_command_line_take_the_place_of_a_files(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("sweep: {include: [{seed: 1}, {seed: 2}]}")
    rows = expand(["sweep.include=[{seed: 5}]"], multirun=False, sweep_file=path).rows
    assert [row.config.seed for row in rows] == [5]


def test_a_row_may_ask_one_thing_of_its_prediction(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("sweep: {include: [{seed: 1, predict.tensor: 2}]}")
    [row] = expand([], multirun=False, sweep_file=path).rows
    assert (row.config.seed, row.config.predict.tensor) == (1, 2)


@pytest.mark.parametrize(
    "text",
    ["sweep: {include: [{model: glob(gpt2-1*)}]}", "hydra: {sweeper: {params: {model: glob(gpt2-1*)}}}"],
    ids=["row", "parameter"],
)
def test_a_row_and_a_parameter_may_match_their_options(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    rows = expand([], multirun=False, sweep_file=path).rows
    assert [row.axes["model"] for row in rows] == ["gpt2-1.5b", "gpt2-125m"]


def test_an_override_of_a_setting_takes_the_place_of_a_rows_own(tmp_path):
    """One of an axis narrows the rows; a setting makes no other cell, so that none of them is left out."""
    path = tmp_path / "mine.yaml"
    path.write_text("sweep: {include: [{seed: 1, measure.steps: 24, timeout_s: 5}, {seed: 2}]}")
    rows = expand(["measure.steps=2", "timeout_s=7"], multirun=False, sweep_file=path).rows
    found = [(row.config.seed, row.config.measure.steps, row.config.timeout_s) for row in rows]
    assert found == [(1, 2, 7.0), (2, 2, 7.0)]
    assert [row.overrides["seed"] for row in expand(["seed=2"], multirun=False, sweep_file=path).rows] == [2]


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_header_names_purpose_cells_and_device_time(path):
    text = path.read_text()
    assert "# Purpose:" in text and "# Device time:" in text
    line = re.search(r"# Cells: (.*?)# Device time", text, re.DOTALL)[1]
    claimed = int(re.search(r"= (\d+)", line)[1] if re.search(r"= \d", line) else re.search(r"\d+", line)[0])
    rows = declared(path.stem).rows
    assert sum(row.excluded_reason is None for row in rows) == claimed


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_every_sweep_plans_on_a_cpu_with_a_verdict_for_every_cell(path):
    expansion = declared(path.stem)
    cells = make_plan(expansion, CPU, RULES).cells
    assert len(cells) == len(expansion.rows)
    for planned in cells:
        assert planned.verdict == "run" or (planned.reason_code and planned.reason), planned.cell.slug


def test_smoke_covers_every_pair_of_values_once_each():
    """But for fp8, of which a few cells are enough, and for 4 bits compiled, which alone takes as long as ten cells."""
    rows = [row for row in declared("smoke").rows if not row.axes["precision"].startswith("fp8")]
    for one, other in itertools.combinations(SMOKE_AXES, 2):
        seen = {(row.axes[one], row.axes[other]) for row in rows}
        values = ({row.axes[axis] for row in rows} for axis in (one, other))
        assert seen == set(itertools.product(*values)) - {("nf4", "inductor")}


def test_smoke_shows_the_number_formats_that_people_ask_for():
    assert {row.axes["precision"] for row in declared("smoke").rows} >= {"bf16", "fp8-torchao", "fp8", "nf4"}
    refused = [one for one in make_plan(declared("smoke"), CPU, RULES).cells if one.verdict != "run"]
    assert [one.cell.axes["precision"] for one in refused] == ["fp8"]


# --- cpu-full: every option that works without CUDA

NEEDS_CUDA = {
    "compile.mode": {"reduce-overhead"},
    "precision.recipe": {"delayed", "current", "block"},
    "strategy.backward_prefetch": {"none", "pre", "post"},
    "attention": {"cudnn", "efficient"},
}
"""Choices that no CPU runs, whatever they are combined with."""
OF_THE_OPTION = {"strategy.kind", "precision.backend"}
"""Choices that an axis value makes."""
FAMILY = (
    "norm", "mlp", "positions", "rotary_fraction", "bias", "head_bias", "parallel_residual", "shared_norm",
    "tie_embeddings",
)  # fmt: skip
"""What tells families of models apart, beside the sharing of key-value heads."""
COVERED_AXES = [axis for axis in AXES if axis != "model"]
PRODUCT = {axis: [option.name for option in list_options(axis) if option.alias_of is None] for axis in COVERED_AXES}


def launched(expansion):
    """The cells that a CPU would run."""
    return [planned.cell for planned in make_plan(expansion, ANY_CPU, RULES).cells if planned.verdict == "run"]


def on_cpu(*words):
    return launched(expand(words, multirun=True))


@pytest.fixture(scope="module")
def cpu_full():
    return launched(declared("cpu-full"))


@pytest.fixture(scope="module")
def possible():
    """Every combination of axis values that a CPU runs."""
    return on_cpu("micro_batch_size=2", *(f"{axis}={','.join(values)}" for axis, values in PRODUCT.items()))


def test_nothing_in_cpu_full_is_ruled_out(cpu_full):
    assert len(cpu_full) == len(declared("cpu-full").rows)


@pytest.mark.parametrize("axis", COVERED_AXES)
def test_cpu_full_has_every_axis_value_that_a_cpu_runs(cpu_full, possible, axis):
    assert {cell.axes[axis] for cell in cpu_full} == {cell.axes[axis] for cell in possible}


def test_cpu_full_covers_every_pair_that_a_cpu_runs(cpu_full, possible):
    def pairs(cells):
        for cell in cells:
            values = [(axis, cell.axes[axis]) for axis in COVERED_AXES]
            yield from itertools.combinations(values, 2)

    missing = {pair for pair in set(pairs(possible)) - set(pairs(cpu_full)) if ("compile", "thunder") not in pair}
    assert not missing


@pytest.mark.parametrize(
    "key", sorted(key for key in set(CHOICES) - OF_THE_OPTION if key.partition(".")[0] not in NOT_IDENTITY)
)
def test_cpu_full_has_every_choice_inside_a_group(cpu_full, key):
    seen = {value_at(cell.config, key) for cell in cpu_full} - {None}
    assert seen == set(CHOICES[key]) - NEEDS_CUDA.get(key, set())


@pytest.mark.parametrize(
    "words",
    [
        ("activation_checkpointing.every", "per_op"),
        ("strategy.accumulation_sync", "last"),
        ("precision.pad", True),
        ("compile.dynamic", True),
        ("compile.dynamic", None),
        ("compile.fullgraph", True),
        ("optimizer.clip_norm", 1.0),
        ("model.dropout", 0.1),
        ("generate.temperature", 0.0),
        ("generate.top_k", 50),
        ("workload.loss_chunk_tokens", 64),
    ],
    ids=str,
)
def test_cpu_full_turns_every_switch(cpu_full, words):
    assert words[1] in [value_at(cell.config, words[0]) for cell in cpu_full]


def test_what_cpu_full_leaves_out_runs_on_no_cpu():
    axes = [f"{axis}={','.join(PRODUCT[axis])}" for axis in ("strategy", "precision", "engine")]
    for key, values in NEEDS_CUDA.items():
        swept = f"{key}={','.join(sorted(values))}"
        cells = on_cpu(*axes, "workload=lora,forward", "compile=inductor", swept)
        assert not [cell.slug for cell in cells if key in cell.overrides], key


def test_cpu_full_has_a_model_of_every_family(cpu_full):
    def families(cells):
        for model in (cell.config.model for cell in cells):
            heads = model.num_kv_heads
            shared = "one" if heads == 1 else "own" if heads == model.num_heads else "groups"
            yield (shared, *(getattr(model, key) for key in FAMILY))

    assert set(families(cpu_full)) == set(families(on_cpu("workload=parity", "model=glob(*)")))
