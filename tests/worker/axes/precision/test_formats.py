"""Number formats: who mixes them, and what FSDP casts to."""

import pytest

from benchrunner.worker.axes.precision.formats import fsdp_policy_dtypes, mixed_by
from cells import make_cell


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
