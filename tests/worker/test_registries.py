"""Every option file has its code, and all code its option file."""

import pytest
import yaml

from benchrunner.core.paths import config_dir
from benchrunner.worker.__main__ import WORKLOADS
from benchrunner.worker.axes.activation_checkpointing import APPLY
from benchrunner.worker.axes.compile import COMPILERS
from benchrunner.worker.axes.optimizer import OPTIMIZERS
from benchrunner.worker.axes.precision.formats import PRECISIONS
from benchrunner.worker.axes.strategy import SHARD, WRAP
from benchrunner.worker.engines.engine import ENGINES

DICTIONARIES = {
    "activation_checkpointing": APPLY,
    "compile": COMPILERS,
    "engine": ENGINES,
    "optimizer": OPTIMIZERS,
    "precision": PRECISIONS,
    "workload": WORKLOADS,
}


def option_files(group):
    """Option → what its file says; aliases apart."""
    files = {path.stem: yaml.safe_load(path.read_text()) for path in (config_dir() / group).glob("*.yaml")}
    return {name: content for name, content in files.items() if "defaults" not in content}


@pytest.mark.parametrize("group", sorted(DICTIONARIES))
def test_options_and_code_have_the_same_names(group):
    files = option_files(group)
    assert set(files) == set(DICTIONARIES[group]), f"conf/{group}/*.yaml and the dictionary: docs/add-an-axis-value.md"
    assert {name: content["name"] for name, content in files.items()} == {name: name for name in files}


def test_strategies_are_of_the_kinds_that_there_are():
    assert {content["kind"] for content in option_files("strategy").values()} == SHARD.keys() | WRAP.keys()
