"""The registries of the worker hold exactly the options that conf names."""

import pytest
import yaml

from benchrunner.core.paths import config_dir
from benchrunner.worker.axes.activation_checkpointing import APPLY
from benchrunner.worker.axes.precision.formats import PRECISIONS, fsdp_policy_dtypes, mixed_by
from cells import make_cell


def option_names(group):
    documents = (yaml.safe_load(path.read_text()) for path in (config_dir() / group).glob("*.yaml"))
    return {document["name"] for document in documents if "name" in document}


@pytest.mark.parametrize(
    ("group", "registry"),
    [("precision", PRECISIONS), ("activation_checkpointing", APPLY)],
    ids=lambda value: str(value)[:9],
)
def test_every_option_is_implemented_and_every_implementation_is_an_option(group, registry):
    assert option_names(group) == set(registry)


@pytest.mark.parametrize(
    ("words", "how", "parameters"),
    [
        (["precision=bf16-mixed", "strategy=ddp"], "autocast", "None"),
        (["precision=bf16-mixed", "strategy=fsdp"], "policy", "torch.bfloat16"),
        (["precision=fp16-mixed", "strategy=fsdp"], "policy", "torch.float16"),
        (["precision=fp16-mixed", "strategy=fsdp", "strategy.mixed_precision_by=autocast"], "autocast", "None"),
        (["precision=fp8", "strategy=fsdp"], None, "None"),
        (["precision=fp8-torchao", "strategy=fsdp"], None, "None"),
    ],
)
def test_who_mixes(words, how, parameters):
    cell = make_cell(*words)
    assert mixed_by(cell) == how
    assert str(fsdp_policy_dtypes(cell).param) == parameters
