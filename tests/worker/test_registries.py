"""Every option file has its code, and all code its option file."""

import pytest
import yaml

from benchrunner.core.paths import config_dir
from benchrunner.worker.axes.activation_checkpointing import APPLY
from benchrunner.worker.axes.compile import COMPILERS
from benchrunner.worker.axes.optimizer import OPTIMIZERS
from benchrunner.worker.axes.precision.formats import PRECISIONS
from benchrunner.worker.engines.engine import ENGINES

DICTIONARIES = {
    "activation_checkpointing": APPLY,
    "compile": COMPILERS,
    "engine": ENGINES,
    "optimizer": OPTIMIZERS,
    "precision": PRECISIONS,
}


@pytest.mark.parametrize("group", sorted(DICTIONARIES))
def test_options_and_code_have_the_same_names(group):
    files = {path.stem: yaml.safe_load(path.read_text()) for path in (config_dir() / group).glob("*.yaml")}
    options = {name for name, content in files.items() if "defaults" not in content}
    assert options == set(DICTIONARIES[group])
