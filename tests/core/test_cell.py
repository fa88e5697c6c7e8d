import re
from dataclasses import replace

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st

from benchrunner.core.axes import AXES
from benchrunner.core.cell import (
    SLUG_BYTES,
    cell_from_dict,
    cell_to_dict,
    config_digest,
    derive_sizes,
    digest_section,
    format_value,
    identity,
    make_slug,
    remember_by_identity,
    unique_slug,
)
from benchrunner.core.schema import LauncherConfig
from samples import make_cell

USUAL = dict(zip(AXES, ("debug", "train", "single", "bf16", "eager", "none", "native", "adamw"), strict=True))

GOLDEN = {
    "7b6d6adc2443": ({}, {}),
    "3efe098fa922": ({"model": "llama2-7b", "strategy": "fsdp_stage3"}, {}),
    "f646f9f356a4": ({"strategy": "ddp"}, {"micro_batch_size": 2}),
    "9472849ffd8a": ({"precision": "fp8"}, {"precision.recipe": "current"}),
    "5d928abce194": ({"workload": "generate"}, {"generate.top_k": None, "generate.temperature": 0.8}),
    "46c2a16db883": ({"compile": "inductor"}, {"compile.mode": "max-autotune", "compile.fullgraph": True}),
    "825a2785ba64": ({"activation_checkpointing": "selective"}, {"activation_checkpointing.every": "1/4"}),
    "06d06a70c0a8": ({"optimizer": "sgd"}, {"optimizer.lr": 1e-5}),
    "3c501845e853": ({"model": "gpt2-125m"}, {"model.num_layers": 3, "seq_len": 1024, "devices": 4}),
    "5ba3b4544195": ({"engine": "fabric"}, {"measure.steps": 3, "timeout_s": 60.0, "hardware": "cpu", "seed": 1}),
}


@pytest.mark.parametrize(("cell_id", "chosen"), GOLDEN.items())
def test_ten_ids_never_change(cell_id, chosen):
    """Locks, resume and history stand on them: a failure here is a break of every lock file there is."""
    axes, overrides = chosen
    assert identity({**USUAL, **axes}, overrides) == cell_id


def test_order_and_settings_of_the_sweep_are_no_part_of_the_identity():
    one = identity(USUAL, {"seq_len": 8, "micro_batch_size": 2})
    other = identity(dict(reversed(USUAL.items())), {"micro_batch_size": 2, "seq_len": 8, "measure.steps": 3})
    assert one == other
    assert one != identity(USUAL, {"seq_len": 8})


def test_a_slug_is_a_short_file_name_that_ends_in_the_id():
    overrides = {"model.num_layers": 3, "activation_checkpointing.every": "1/4", "attention": "Ünïcode ../x"}
    for changed in ({}, overrides, {f"key{i}": i for i in range(40)}):
        slug = make_slug(USUAL, changed, "0123456789ab")
        assert re.fullmatch(r"[a-z0-9._-]+", slug)
        assert len(slug.encode()) <= SLUG_BYTES
        assert slug.endswith("-012345")
    assert "num_layers-3" in make_slug(USUAL, overrides, "0123456789ab")


def test_settings_of_the_sweep_are_not_in_the_slug():
    assert make_slug(USUAL, {"measure.steps": 3}, "0123456789ab") == make_slug(USUAL, {}, "0123456789ab")


def parse(text):
    return OverridesParser.create().parse_overrides([f"key={text}"])[0].value()


LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=12)
    | st.sampled_from(["null", "True", "inf", "1e5", "1/2", "a,b", "it's", "\\'", "\\", "a\\\\", "[x]", "{", ""])
)  # fmt: skip


@given(
    LEAVES
    | st.lists(LEAVES, max_size=3)
    | st.dictionaries(st.from_regex(r"[a-z_]{1,5}", fullmatch=True), LEAVES, max_size=3)
)
def test_hydra_reads_back_every_formatted_value(value):
    read = parse(format_value(value))
    assert read == value
    assert type(read) is type(value)


def test_a_cell_survives_its_file():
    cell = make_cell(strategy="fsdp_stage3", leaves={"model.num_layers": 2})
    assert cell_from_dict(cell_to_dict(cell)) == cell


def test_words_repeat_every_change():
    cell = make_cell(strategy="ddp", leaves={"micro_batch_size": 2})
    assert cell.as_overrides()[: len(AXES)] == [f"{group}={name}" for group, name in cell.axes.items()]
    assert "micro_batch_size=2" in cell.as_overrides()


def test_the_digest_sees_every_default_but_no_prose():
    config = make_cell().config
    before = config_digest(config)
    assert config_digest(replace(config, measure=replace(config.measure, steps=99))) != before
    assert config_digest(replace(config, model=replace(config.model, norm_eps=1e-6))) != before
    assert config_digest(replace(config, model=replace(config.model, description="other words"))) == before
    elsewhere = replace(config, timeout_s=1.0, out_dir="elsewhere", launcher=LauncherConfig(name="slurm"))
    assert config_digest(elsewhere) == before


@pytest.mark.parametrize(
    ("kind", "changes", "visible", "expected"),
    [
        ("single", {}, 8, {"devices": 1, "world_size": 1, "global_batch_size": 1, "accumulation_steps": 1}),
        ("ddp", {}, 8, {"devices": 8, "world_size": 8, "global_batch_size": 8}),
        ("ddp", {"devices": 2, "nodes": 2, "micro_batch_size": 3}, 8, {"world_size": 4, "global_batch_size": 12}),
        ("ddp", {"global_batch_size": 32, "micro_batch_size": 2}, 4, {"accumulation_steps": 4}),
        ("ddp", {"global_batch_size": 9, "micro_batch_size": 2}, 4, {"accumulation_steps": 0}),
        ("single", {"seq_len": 64}, 1, {"seq_len": 64}),
        ("single", {}, 1, {"seq_len": 128}),
    ],
)
def test_sizes_follow_from_scalars_and_visible_devices(kind, changes, visible, expected):
    config = replace(make_cell(strategy=kind).config, **changes)
    sizes = derive_sizes(config, visible)
    assert {name: getattr(sizes, name) for name in expected} == expected


def test_a_slug_reads_as_the_axes_and_then_the_last_word_of_each_changed_key():
    slug = make_slug(USUAL, {"model.moe.num_layers": 3, "seq_len": 64}, "0123456789ab")
    assert slug == "debug_train_single_bf16_eager_none_native_adamw_num_layers-3_seq_len-64-012345"


def test_a_slug_that_is_cut_ends_in_no_stray_mark():
    room = SLUG_BYTES - 7 - len(make_slug(USUAL, {}, "0123456789ab")[:-7])
    text = "x" * (room - len("_key-") - 1)
    assert make_slug(USUAL, {"key": f"{text}_y"}, "0123456789ab").endswith(f"-{text}-012345")
    full = make_slug(USUAL, {"key": "z" * 99}, "0123456789ab")
    assert len(full) == SLUG_BYTES and full.startswith("debug_")


def test_values_are_written_as_people_write_them():
    values = {None: "null", True: "true", False: "false", "llama2-7b": "llama2-7b", "Q_b": "Q_b", "1/4": "1/4"}
    assert {value: format_value(value) for value in values} == values
    assert format_value("true") == "'true'" and format_value("a b") == "'a b'"


def test_sizes_are_whole_numbers_and_name_the_machine():
    config = replace(make_cell(strategy="ddp").config, micro_batch_size=3, global_batch_size=24, nodes=2)
    sizes = derive_sizes(config, 0)
    assert (sizes.micro_batch_size, sizes.nodes, sizes.devices, sizes.accumulation_steps) == (3, 2, 1, 4)
    assert type(sizes.accumulation_steps) is int


def test_where_a_number_comes_from_is_prose():
    model = make_cell().config.model
    assert digest_section(replace(model, source="a paper")) == digest_section(model)


def test_a_slug_that_is_taken_gives_way_to_one_with_the_whole_id():
    short = make_slug(USUAL, {"seq_len": 64}, "0123456789ab")
    assert unique_slug(USUAL, {"seq_len": 64}, "0123456789ab", set()) == short
    longer = unique_slug(USUAL, {"seq_len": 64}, "0123456789ab", {short})
    assert longer == f"{short[:-14]}-6789ab-012345" and len(longer) == len(short)


def test_a_digest_is_taken_once_of_a_section_that_cells_share():
    asked = []
    remembered = remember_by_identity(lambda section: asked.append(section) or f"{len(asked)}")
    one, other = [1], [1]
    assert [remembered(one), remembered(other), remembered(one), remembered(other)] == ["1", "2", "1", "2"]
