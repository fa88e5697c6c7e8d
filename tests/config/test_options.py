"""What an option's file may say, so that a row can be put together from pieces that were composed apart."""

import shutil

import pytest

from benchrunner.config import hydra_app
from benchrunner.core import paths
from benchrunner.core.errors import ConfigError


@pytest.fixture
def write_model(tmp_path, monkeypatch):
    """Write a model of one's own, `mine`, into a copy of conf/ that the program takes for its own."""
    conf = shutil.copytree(paths.config_dir(), tmp_path / "conf")
    monkeypatch.setattr(paths, "config_dir", lambda: conf)
    usual = (conf / "model" / "debug.yaml").read_text()

    def write(text):
        (conf / "model" / "mine.yaml").write_text(usual.replace("name: debug", "name: mine") + text)

    return write


@pytest.mark.parametrize(
    "text",
    [
        "dropout: ${model.norm_eps}\n",
        "# @package _global_\n",
        "defaults:\n  - override /strategy: ddp\n",
        "defaults:\n  - /strategy: ddp\n",
        "override /strategy: ddp\n",
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
