import os
import random
import sys
from dataclasses import asdict, replace

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from benchrunner.config import hydra_app, keys
from benchrunner.config.hydra_app import options
from benchrunner.config.hydra_app.loader import explained, first_lines, schema_defaults, schema_node, store_schema
from benchrunner.config.hydra_app.sweeps import sweep_body
from benchrunner.core import paths
from benchrunner.core.axes import AXES, GROUPS
from benchrunner.core.cell import format_value, identity
from benchrunner.core.errors import ConfigError, UsageError
from benchrunner.core.schema import SweepConfig
from samples import make_config, read_yaml

AXIS_VALUES = {
    "model": ["debug", "gpt2-125m", "llama2-7b"],
    "workload": ["train", "lora"],
    "strategy": ["single", "fsdp", "fsdp_stage2"],
    "precision": ["bf16", "fp32", "fp8"],
    "compile": ["eager", "inductor"],
    "activation_checkpointing": ["none", "selective"],
    "model.num_layers": ["1", "3"],
    "model.dropout": ["0.0", "0.1"],
    "optimizer.lr": ["1e-3", "0.5"],
    "generate.top_k": ["null", "5"],
    "micro_batch_size": ["1", "2"],
    "seq_len": ["null", "64"],
    "attention": ["auto", "math"],
}
FIXED_VALUES = {
    "strategy": ["ddp"], "compile": ["inductor"], "model.num_layers": ["2"], "compile.mode": ["max-autotune"],
    "measure.steps": ["3"], "timeout_s": ["7"], "model": ["gpt2-125m"], "precision.recipe": ["null"],
}  # fmt: skip


def expand(*words, multirun=True, sweep_file=None):
    return hydra_app.expand(list(words), multirun=multirun, sweep_file=sweep_file).rows


def compose_by_hydra(*rows):
    """Each row of words as Hydra's own compose gives it."""
    store_schema()
    with initialize_config_dir(config_dir=str(paths.config_dir()), version_base="1.3"):
        return [OmegaConf.to_container(compose("config", overrides=list(words)), resolve=True) for words in rows]


def changed(rows, key):
    return [row.overrides.get(key) for row in rows]


def write_sweep(path, text):
    path.write_text("# @package _global_\n" + text)
    return path


def test_bare_words_mean_the_defaults():
    [row] = expand(multirun=False)
    assert row.overrides == {}
    assert row.axes["model"] == "debug"
    assert [asdict(row.config)] == compose_by_hydra([])


@pytest.mark.parametrize("seed", [0, 1])
def test_random_cells_of_a_random_matrix_equal_hydras_own_composition(seed):
    pick = random.Random(seed)
    swept = {
        key: pick.sample(values, pick.randint(2, len(values)))
        for key, values in AXIS_VALUES.items()
        if pick.random() < 0.6
    }
    fixed = {key: values[0] for key, values in FIXED_VALUES.items() if key not in swept and pick.random() < 0.5}
    words = [f"{key}={','.join(values)}" for key, values in swept.items()] + [f"{k}={v}" for k, v in fixed.items()]
    rows = expand(*words)
    combinations = [{key: pick.choice(values) for key, values in swept.items()} for _ in range(20)]
    for own in compose_by_hydra(*([f"{k}={v}" for k, v in {**point, **fixed}.items()] for point in combinations)):
        assert own in [asdict(row.config) for row in rows]
    some = pick.sample(rows, 5)
    assert compose_by_hydra(*map(repeat_words, some)) == [asdict(row.config) for row in some]


def repeat_words(row):
    groups = {group: getattr(row.config, group).name for group in GROUPS}
    return [f"{key}={format_value(value)}" for key, value in {**groups, **row.overrides}.items()]


def test_an_expansion_knows_what_it_was_asked(tmp_path):
    path = write_sweep(tmp_path / "mine.yaml", "seed: 5\n")
    ways = ({"multirun": False}, {"multirun": True}, {"multirun": False, "sweep_file": path})
    asked = [hydra_app.expand(["seq_len=8"], **way) for way in ways]
    assert [one.arguments for one in asked] == [["seq_len=8"], ["-m", "seq_len=8"], [str(path), "seq_len=8"]]
    assert [one.sweep_name for one in asked] == ["cli", "cli", "mine"]
    assert [one.stated for one in asked] == [{"seq_len"}] * 3 and asked[0].models["debug"]["num_layers"] == 4


def test_order_is_hydras_and_the_last_key_varies_fastest():
    rows = expand("micro_batch_size=1,2", "strategy=single,ddp")
    assert [(row.config.micro_batch_size, row.axes["strategy"]) for row in rows] == [
        (1, "single"), (1, "ddp"), (2, "single"), (2, "ddp"),
    ]  # fmt: skip


def test_glob_and_range_are_hydras():
    assert [row.axes["model"] for row in expand("model=glob(gpt2*)")] == ["gpt2-1.5b", "gpt2-125m", "gpt2-xl-char"]
    assert changed(expand("micro_batch_size=range(2,8,2)"), "micro_batch_size") == [2, 4, 6]


def test_an_alias_is_recorded_as_its_target_and_duplicates_are_removed():
    rows = expand("strategy=fsdp,ddp,fsdp_stage3,ddp")
    assert [row.axes["strategy"] for row in rows] == ["fsdp_stage3", "ddp"]


def test_a_value_equal_to_the_option_files_is_no_override():
    rows = expand("model=debug,gpt2-125m", "model.dropout=0.0,0.1")
    assert [(row.axes["model"], row.overrides) for row in rows] == [
        ("debug", {}), ("debug", {"model.dropout": 0.1}), ("gpt2-125m", {}), ("gpt2-125m", {"model.dropout": 0.1}),
    ]  # fmt: skip


def test_a_swept_leaf_applies_to_every_option_even_where_it_equals_the_base():
    rows = expand("model=debug,llama2-7b", "model.num_layers=2,32")
    assert [row.config.model.num_layers for row in rows] == [2, 32, 2, 32]


def test_the_later_word_of_a_key_wins():
    [row] = expand("model=debug", "model=gpt2-125m", "seq_len=8", "seq_len=16", multirun=False)
    assert row.axes["model"] == "gpt2-125m"
    assert row.config.seq_len == 16


def test_a_mapping_sets_its_leaves():
    [row] = expand("generate={top_k:5,new_tokens:3}", multirun=False)
    assert row.overrides == {"generate.top_k": 5, "generate.new_tokens": 3}


def test_an_open_mapping_takes_any_name():
    [row] = expand("+hardware.peak_flops.bf16=1e15", multirun=False)
    assert row.config.hardware.peak_flops == {"bf16": 1e15}
    assert row.overrides == {"hardware.peak_flops.bf16": 1e15}


def test_launcher_and_hardware_are_repeated_by_name():
    [row] = expand("hardware=cpu", "launcher=slurm", "launcher.partition=big", multirun=False)
    assert row.overrides == {"launcher": "slurm", "launcher.partition": "big", "hardware": "cpu"}


def test_rows_share_their_sections():
    rows = expand("strategy=single,ddp", "micro_batch_size=1,2")
    assert rows[0].config.model is rows[3].config.model
    assert rows[0].config.strategy is rows[1].config.strategy


# --- sweeps --------------------------------------------------------------------------------------------------------

SWEEP = """
defaults:
  - override /model: gpt2-125m
hydra:
  mode: MULTIRUN
  sweeper:
    params:
      strategy: single,ddp
      micro_batch_size: 1,2
      seq_len: 64
model:
  num_layers: 3
timeout_s: 60
sweep:
  include:
    - {strategy: fsdp, precision: "fp32,bf16"}
    - {strategy: single, micro_batch_size: 2}
  exclude:
    - match: {strategy: ddp, micro_batch_size: ">=2"}
      reason: not today
"""


def test_a_sweep_file_expands_to_product_and_included_rows(tmp_path):
    expansion = hydra_app.expand([], multirun=False, sweep_file=write_sweep(tmp_path / "mine.yaml", SWEEP))
    found = [(row.axes["strategy"], row.config.micro_batch_size, row.axes["precision"]) for row in expansion.rows]
    assert expansion.sweep_name == "mine"
    assert found == [
        ("single", 1, "bf16"), ("single", 2, "bf16"), ("ddp", 1, "bf16"), ("ddp", 2, "bf16"),
        ("fsdp_stage3", 1, "fp32"), ("fsdp_stage3", 1, "bf16"),
    ]  # fmt: skip
    assert {row.axes["model"] for row in expansion.rows} == {"gpt2-125m"}
    assert [row.excluded_reason for row in expansion.rows] == [None, None, None, "not today", None, None]


def test_what_a_sweep_files_body_changes_is_part_of_the_identity(tmp_path):
    row = expand(sweep_file=write_sweep(tmp_path / "mine.yaml", SWEEP))[0]
    assert row.overrides == {"model.num_layers": 3, "seq_len": 64, "timeout_s": 60.0}


def test_a_word_narrows_the_list_of_a_sweep(tmp_path):
    path = write_sweep(tmp_path / "mine.yaml", SWEEP)
    rows = expand("strategy=single", sweep_file=path)
    assert [(row.axes["strategy"], row.config.micro_batch_size) for row in rows] == [("single", 1), ("single", 2)]
    rows = expand("model=debug", "strategy=single", "micro_batch_size=4,8", sweep_file=path)
    assert {row.axes["model"] for row in rows} == {"debug"}
    assert changed(rows, "micro_batch_size") == [4, 8]


def test_a_sweep_of_included_rows_only_has_no_product(tmp_path):
    text = "sweep:\n  include:\n    - {strategy: ddp}\n    - {strategy: fsdp_stage2, seed: 1}\n"
    path = write_sweep(tmp_path / "rows.yaml", text)
    assert [row.axes["strategy"] for row in expand(sweep_file=path)] == ["ddp", "fsdp_stage2"]
    rows = expand("micro_batch_size=1,2", sweep_file=path)
    assert [row.config.micro_batch_size for row in rows] == [1, 2, 1, 2]


def test_declared_sweeps_have_a_description():
    """That each expands, and to how many cells, is asked in test_sweeps.py."""
    options = hydra_app.list_options("sweeps")
    assert "smoke" in [option.name for option in options]
    assert [option.name for option in options if not option.description] == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sweep:\n  exclude:\n    - {match: {strategie: ddp}, reason: x}\n", r"strategie.*did you mean strategy\?"),
        ("sweep:\n  exclude:\n    - {match: {strategy: ddp}}\n", "sweep.exclude.*reason"),
        ("sweep:\n  exclude:\n    - {match: {}, reason: x}\n", "every row"),
        ("micro_batch_sise: 3\n", r"did you mean micro_batch_size\?"),
        ("model: {num_layer: 3}\n", r"did you mean model.num_layers\?"),
        ("defaults: [{override /strategy: dpp}]\n", r"did you mean ddp\?"),
        ("micro_batch_size: many\n", "micro_batch_size.*many"),
        ("micro_batch_size: 0\n", "micro_batch_size: 0 is not allowed"),
        ("seq_len: ${model.d_model}\n", "seq_len.*interpolation"),
        ("model: {name: mine}\n", r"model\.name.*mine"),
        ("hydra: {sweeper: {params: {strategy: 'ddp,sngle'}}}\n", r"sngle.*did you mean single\?"),
        ("- a\n", "not a sweep"),
        ("", "not a sweep"),
        ("a: [\n", r"wrong\.yaml: not YAML: while parsing a flow node"),
    ],
)
def test_a_wrong_sweep_file_is_one_message(tmp_path, text, message):
    with pytest.raises(UsageError, match=message):
        expand(sweep_file=write_sweep(tmp_path / "wrong.yaml", text))


def test_a_sweep_file_of_another_encoding_is_named(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_bytes(SWEEP.encode("utf-16"))
    with pytest.raises(UsageError, match=r"mine\.yaml: not YAML: its text is not UTF-8"):
        expand(sweep_file=path)


def test_a_pipe_is_no_sweep_file(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(UsageError, match=r"pipe\.yaml: a pipe, and no file$"):
        expand(sweep_file=tmp_path / "pipe.yaml")


def test_a_missing_sweep_file_is_named(tmp_path):
    write_sweep(tmp_path / "nightly.yaml", SWEEP)
    with pytest.raises(UsageError, match=r"nigthly\.yaml.*did you mean nightly\.yaml\?"):
        expand(sweep_file=tmp_path / "nigthly.yaml")


# --- wrong words ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("strategy=dpp", r"^strategy: no option 'dpp' \(did you mean ddp\?\); allowed: ddp, fsdp"),
        ("strategie=ddp", r"^strategie: no such key \(did you mean strategy\?\)"),
        ("micro_batch_sise=2", r"did you mean micro_batch_size\?"),
        ("model.d_modle=3", r"^model.d_modle: no such key \(did you mean model.d_model\?\); keys of model: .*d_ff"),
        ("model/foo=1", "^model/foo: no such key"),
        ("micro_batch_size=abc", r"^micro_batch_size: abc is not an integer, max or best$"),
        ("micro_batch_size=1.5", "not an integer"),
        ("micro_batch_size=true", "not an integer"),
        ("micro_batch_size=null", "null is not an integer"),
        ("micro_batch_size=0", "^micro_batch_size: 0 is not allowed, must be greater than 0"),
        ("seq_len=-5", "greater than 0"),
        ("optimizer.lr=0", "greater than 0"),
        ("measure.warmup_steps=-1", "0 or more"),
        ("model.dropout=1", "less than 1"),
        ("timeout_s=inf", "finite"),
        ("attention=flsh", r"^attention: 'flsh' is not one of auto, flash.*did you mean flash\?"),
        ("compile.mode=fast", "not one of default, reduce-overhead"),
        ("activation_checkpointing.every=3/2", "per_op nor a fraction"),
        ("activation_checkpointing.every=half", "per_op nor a fraction"),
        ("strategy=[fsdp,ddp]", "a list is no sweep; write strategy=fsdp,ddp"),
        ("micro_batch_size=[1,2]", "a list is no sweep"),
        ("strategy={stage:2}", "name an option"),
        ("strategy=", "has no value; write strategy=VALUE"),
        ("out_dir=~/runs", r"write out_dir=\$HOME/runs"),
        ("seq_len=interval(1,2)", r"interval\(\) names no values"),
        ("seq_len=glob(*)", "matches nothing"),
        ("model=glob(zz*)", "matches nothing"),
        ("+sweeps=nigthly", "no sweep 'nigthly'"),
        ("+sweeps=a,b", "one sweep at a time"),
        ("+sweeps=[a,b]", "one sweep at a time"),
        ("sweeps=smoke", r"write \+sweeps=smoke"),
        ("hydra/launcher=basic", "launcher=local or launcher=slurm"),
        ("hydra/sweeper=basic", "use -m"),
        ("hydra.run.dir=x", "out_dir"),
        ("~model", "deletes a key"),
        ("model@x=debug", "package"),
        ("+seq_len=2", "without the +"),
        ("+foo=2", "^foo: no such key"),
        ("model.name=x", "choose with model=OPTION"),
        ("seq_len='${model.d_model}'", "seq_len"),
        ("model.source='${model.name}'", "interpolation"),
        ("generate=5", "no value for a section"),
        ("foo", "neither key=value"),
        ("+seq_len=(", r"^seq_len: cannot read '\+seq_len=\(': "),
        ("x y=2", "cannot read"),
        ("measure.steps=1,2", "does not tell cells apart"),
        ("predict.tensor=1,2", r"predict.tensor: does not tell cells apart.*predict=only"),
        ("predict=only,analytic", "does not tell cells apart"),
        ("hardware=cpu,auto", "does not tell cells apart"),
    ],
)
def test_a_wrong_word_is_one_message(word, message):
    with pytest.raises(UsageError, match=message):
        expand(word)


@pytest.mark.parametrize("word", ["strategy=fsdp,ddp", "seq_len=1,2", "seq_len=range(1,3)", "model=glob(*)"])
def test_a_list_needs_multirun(word):
    with pytest.raises(ConfigError, match=rf"^{word.partition('=')[0]}: \d+ values make a matrix; add -m"):
        expand(word, multirun=False)
    with pytest.raises(ConfigError, match="add -m"):
        hydra_app.read_values([word])


def test_no_warmup_is_allowed():
    [row] = expand("measure.warmup_steps=0", multirun=False)
    assert row.config.measure.warmup_steps == 0


def test_two_sweeps_are_refused(tmp_path):
    with pytest.raises(UsageError, match="one sweep at a time"):
        expand("+sweeps=smoke", sweep_file=write_sweep(tmp_path / "mine.yaml", SWEEP))


# --- options -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def every_option(tmp_path_factory):
    """A row for every option of every axis, and one of changed leaves."""
    entries = [f"{{{group}: glob(*)}}" for group in AXES] + ["{model.num_layers: 3, limits.start_s: 7.5, seq_len: 16}"]
    lines = "".join(f"    - {entry}\n" for entry in entries)
    sweep = write_sweep(tmp_path_factory.mktemp("sweep") / "all.yaml", f"sweep:\n  include:\n{lines}")
    return expand(sweep_file=sweep)


def test_every_option_composes_under_its_own_name(every_option):
    for group in AXES:
        names = {option.alias_of or option.name for option in hydra_app.list_options(group)}
        assert {row.axes[group] for row in every_option} == names


def test_the_cells_of_other_tests_are_composed_as_bench_composes_them(every_option):
    assert any(row.overrides for row in every_option)
    for row in every_option:
        assert make_config(row.axes, row.overrides) == replace(row.config, sweep=SweepConfig())


def test_every_option_has_a_description():
    for group in GROUPS:
        for option in hydra_app.list_options(group):
            assert option.description, (group, option.name)


def test_a_description_is_the_option_files():
    described = {option.name: option.description for option in hydra_app.list_options("strategy")}
    assert described["ddp"] == read_yaml("strategy/ddp")["description"]


def test_values_are_read_without_a_composition():
    assert hydra_app.read_values(["timeout_s=60", "strategy=ddp", "launcher.partition=x"]) == {
        "timeout_s": 60.0,
        "strategy": "ddp",
        "launcher.partition": "x",
    }


def test_the_section_of_an_option_that_nothing_touches():
    assert hydra_app.untouched_section("model", "gpt2-125m")["num_layers"] == 12
    assert hydra_app.untouched_section("limits", "")["start_s"] == schema_defaults()["limits"]["start_s"]


def test_what_an_option_was_before_the_overrides():
    expansion = hydra_app.expand(["model=gpt2-125m", "model.num_layers=3"], multirun=False)
    assert expansion.rows[0].config.model.num_layers == 3
    assert [expansion.untouched("model", name)["num_layers"] for name in ("gpt2-125m", "debug")] == [12, 4]


def test_a_declared_sweep_is_read_as_it_stands():
    assert sweep_body("smoke")["hydra"] == read_yaml("sweeps/smoke")["hydra"]


@pytest.mark.parametrize(
    ("body", "sections"),
    [
        ({"model": {}}, {"model"}),
        ({"defaults": ["_self_", {"override /model": "debug"}], "optimizer": {}}, {"defaults", "optimizer"}),
        ({"defaults": ["smoke", "_self_"], "optimizer": {}}, set(GROUPS)),
    ],
)
def test_a_sweep_that_builds_on_another_may_change_every_section(monkeypatch, body, sections):
    monkeypatch.setattr(options, "sweep_body", {"mine": body}.__getitem__)
    assert options._sections_of("mine") == sections


def test_hydra_answers_about_what_is_composed(tmp_path, capsys, monkeypatch):
    words = ["program", "kept"]
    monkeypatch.setattr("sys.argv", words)
    assert hydra_app.pass_through(["--cfg", "job", "model=gpt2-125m"]) == 0
    assert "name: gpt2-125m" in capsys.readouterr().out
    sweep = write_sweep(tmp_path / "mine.yaml", "seq_len: 77\n")
    assert hydra_app.pass_through(["--cfg", "job"], sweep) == 0
    assert "seq_len: 77" in capsys.readouterr().out
    assert hydra_app.pass_through(["--cfg", "job", "model=nothing"]) == 1
    assert hydra_app.pass_through(["--hydra-help"]) == 0
    assert sys.argv is words


def test_what_is_wrong_is_said_without_the_lines_of_internals():
    text = "In 'config': odd\n\nthe first\n full_key: a\nobject_type=B\n\nSee https://x\nreference_type=C\n the rest \n"
    assert first_lines(text) == "the first; the rest"
    assert first_lines("In 'x/y': Could not find 'z'\n\nConfig search path:\n\tprovider=hydra") == "Could not find 'z'"
    assert first_lines("In 'x/y': 'z': odd") == "'z': odd"


def test_what_omegaconf_raises_is_one_message_with_the_key_of_any_of_its_causes():
    inner = OmegaConfBaseException("inner")
    inner.full_key, inner.msg = "a.b", "In 'x'\nwhy"
    with pytest.raises(ConfigError, match=r"^a.b: why$"), explained():
        try:
            raise inner
        except OmegaConfBaseException as error:
            raise HydraException("outer\nfull_key: a.b") from error
    with pytest.raises(ConfigError, match=r"^c: outer$"), explained():
        raise HydraException("outer\nfull_key: c")


def test_aliases_say_what_they_mean():
    [alias] = [option for option in hydra_app.list_options("strategy") if option.name == "fsdp"]
    assert alias.alias_of == "fsdp_stage3"


def test_an_unknown_group_is_named():
    with pytest.raises(ConfigError, match=r"^stratgy: no such group \(did you mean strategy\?\); allowed: model, "):
        hydra_app.list_options("stratgy")


def test_completion_strips_the_subcommand_and_completes_after_the_last_comma():
    assert hydra_app.complete("bench plan strategy=fsdp_", ["plan"]) == ["strategy=fsdp_stage2", "strategy=fsdp_stage3"]
    assert hydra_app.complete("bench -m strategy=ddp,sin", ["plan"]) == ["strategy=ddp,single"]
    assert hydra_app.complete("bench pl", ["plan", "list"]) == ["plan"]
    assert "model.num_layers=" in hydra_app.complete("bench plan --json model.num_l", ["plan"])
    found = hydra_app.complete("bench -m strategy=ddp,single,fsdp_", [])
    assert found == ["strategy=ddp,single,fsdp_stage2", "strategy=ddp,single,fsdp_stage3"]
    assert hydra_app.complete("bench model=gpt2-125m model.num_layers=", []) == ["model.num_layers=12"]


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("bench -m precision=bf16,fp8 seq_l", ["seq_len="]),
        ("bench -m model=gpt2-125m,debug model.num_layers=", ["model.num_layers=12"]),
        ("bench launcher.setup=[a,b] seq_len=( x=y= seq_l", ["seq_len="]),
        ("bench out_dir=/a/b.c +sweeps=smo", ["+sweeps=smoke"]),
        ("bench model=nothing seq_l", []),
        ("bench hyd", []),
        ("bench swee", []),
        ("bench plan --js", []),
        ("bench strategy==d", []),
        ("bench ..=x seq_l", []),
        ("bench +=1 seq_l", []),
    ],
)
def test_what_else_is_on_the_line_does_not_keep_from_completing(line, found):
    assert hydra_app.complete(line, ["plan"]) == found


@pytest.mark.parametrize(
    ("line", "begins"), [("", True), ("bench", True), ("bench ", True), ("bench strategy=ddp ", False)]
)
def test_completion_begins_with_groups_and_commands(line, begins):
    found = hydra_app.complete(line, ["plan"])
    assert {"model=", "seq_len="} <= set(found) and ("plan" in found) == begins


def test_every_section_of_the_schema_takes_values():
    node = schema_node()
    node.seed, node.model.d_model = 3, 8
    assert (node.seed, node.model.d_model) == (3, 8)


def test_the_schemas_sections_are_what_is_composed():
    [row] = expand(multirun=False)
    assert keys.flatten(asdict(row.config)).keys() <= keys.leaf_types().keys()


def test_a_sweep_is_described_by_its_purpose():
    described = {option.name: option.description for option in hydra_app.list_options("sweeps")}
    assert described["smoke"].startswith("the tool itself") and described["smoke"].endswith("those cells train LoRA.")
    assert all(text and "Cells:" not in text and "Purpose" not in text for text in described.values())


def test_what_is_asked_of_predictions_tells_them_apart():
    words = ["hardware=h100-sxm-80gb", "predict=only", "predict.formula=llm-analysis-2023", "predict.tensor=1,2"]
    rows = hydra_app.expand(words, multirun=True).rows
    assert [row.config.predict.tensor for row in rows] == [1, 2]
    ids = {identity(row.axes, row.overrides) for row in rows}
    elsewhere = hydra_app.expand(["hardware=a100-sxm-80gb", *words[1:]], multirun=True).rows
    assert len(ids | {identity(row.axes, row.overrides) for row in elsewhere}) == 4
