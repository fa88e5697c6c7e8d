"""What an option's file may say, so that a row can be put together from pieces that were composed apart."""

import shutil

import pytest

from benchrunner.config import hydra_app
from benchrunner.config.hydra_app import options
from benchrunner.core import paths
from benchrunner.core.errors import ConfigError


@pytest.fixture
def write_model(tmp_path, monkeypatch):
    """Write a model of one's own, `mine`, into a copy of conf/ that the program takes for its own."""
    conf = shutil.copytree(paths.config_dir(), tmp_path / "conf")
    monkeypatch.setattr(paths, "config_dir", lambda: conf)
    usual = (conf / "model" / "debug.yaml").read_text()

    def write(text, name="mine"):
        (conf / "model" / "mine.yaml").write_text(usual.replace("name: debug", f"name: {name}") + text)

    return write


@pytest.mark.parametrize(
    "text",
    [
        "dropout: ${model.norm_eps}\n",
        "# @package _global_\n",
        "defaults:\n  - override /strategy: ddp\n",
        "defaults:\n  - /strategy: ddp\n",
        "override /strategy: ddp\n",
        "defaults:\n  - ../hardware@_global_.hardware: cpu\n",
        "defaults:\n  - gpt2-1.5b@_global_.hardware\n",
    ],
)
@pytest.mark.parametrize("word", ["model=mine", "model=debug,mine"])
def test_an_option_file_that_reaches_outside_of_its_group_is_refused(write_model, word, text):
    write_model(text)
    with pytest.raises(ConfigError) as refusal:
        hydra_app.expand([word], multirun=True)
    said = "an option file cannot interpolate, change its package or reach outside"
    assert str(refusal.value) == f"model=mine: {said}"


def test_an_option_of_ones_own_is_composed(write_model):
    write_model("bias: true\n# an override is of the command line / of a sweep\n")
    [row] = hydra_app.expand(["model=mine"], multirun=False).rows
    assert (row.axes["model"], row.config.model.bias, row.overrides) == ("mine", True, {})


def test_an_option_that_reaches_outside_in_a_way_that_nobody_thought_of_is_named(write_model, monkeypatch):
    monkeypatch.setattr(options, "_check_option_file", lambda group, name: None)
    write_model("defaults:\n  - ../hardware@_global_.hardware: cpu\n")
    with pytest.raises(ConfigError, match=r"^hardware: is changed by one of model=mine, compile=eager$"):
        hydra_app.expand(["model=debug,mine", "compile=inductor,eager"], multirun=True)


@pytest.mark.parametrize("word", ["model=mine", "model=debug,mine"])
def test_an_option_has_the_name_of_a_file(write_model, word):
    write_model("", name="other")
    with pytest.raises(ConfigError, match=r"^model\.name: 'other' is no option file$"):
        hydra_app.expand([word], multirun=True)


def axes_and_overrides(path, *words):
    rows = hydra_app.expand(words, multirun=True, sweep_file=path).rows
    return [(row.axes["model"], row.axes["strategy"], row.axes["precision"], row.overrides) for row in rows]


def test_groups_have_as_many_options_as_they_like():
    assert axes_and_overrides(None, "strategy=ddp,single", "precision=bf16,fp32,nf4", "model=gpt2-125m") == [
        ("gpt2-125m", strategy, precision, {})
        for strategy in ("ddp", "single")
        for precision in ("bf16", "fp32", "nf4")
    ]


def test_what_was_set_beside_an_option_is_an_override():
    changed = {"model.num_layers": 3, "hardware.peak_flops.mine": 5.0}
    words = ["model.num_layers=3", "+hardware.peak_flops.mine=5", "strategy=ddp,single"]
    assert axes_and_overrides(None, *words) == [
        ("debug", "ddp", "bf16", changed),
        ("debug", "single", "bf16", changed),
    ]


def test_a_product_that_varies_a_group_leaves_it_to_others_as_it_is(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "# @package _global_\ndefaults: [{override /precision: fp32}]\nmodel: {num_layers: 3}\n"
        "hydra: {sweeper: {params: {model: gpt2-125m}}}\nsweep: {include: [{strategy: ddp}]}\n"
    )
    assert axes_and_overrides(path) == [
        ("gpt2-125m", "single", "fp32", {"model.num_layers": 3}),
        ("gpt2-125m", "ddp", "fp32", {"model.num_layers": 3}),
    ]
