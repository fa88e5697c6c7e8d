"""A check that abstains is no pass: which must decide, in which cells."""

import pytest

from benchrunner.core.checks import MINIMUM, num_decided, undecided
from samples import make_cell

EVERYWHERE = {"shape", "precision", "formats", "labels", "work", "data", "steps", "function"}
TRAINING = EVERYWHERE | {"first_loss", "trains", "recompute", "optimizer"}


@pytest.mark.parametrize(
    ("axes", "due"),
    [
        ({}, TRAINING),
        ({"strategy": "ddp"}, TRAINING | {"gradients_reduced"}),
        ({"strategy": "fsdp_stage3", "compile": "inductor"}, TRAINING | {"gradients_reduced", "sharded", "compiled"}),
        ({"workload": "lora"}, TRAINING),
        ({"workload": "forward"}, EVERYWHERE | {"logits"}),
        ({"workload": "generate", "strategy": "ddp"}, EVERYWHERE | {"cache", "choice"}),
        ({"workload": "parity"}, set()),
    ],
)
def test_what_is_due(axes, due):
    assert set(undecided(make_cell(**axes), {})) == due


def test_yes_and_no_are_decisions_and_null_is_none():
    checks = {"shape": {"ok": True}, "work": {"ok": False}, "data": {"ok": None}}
    assert num_decided(checks) == 2
    assert {"shape", "work"} & set(undecided(make_cell(), checks)) == set() and "data" in undecided(make_cell(), checks)


def test_every_check_that_is_due_exists():
    from benchrunner.worker.validity.checks import CHECKS

    assert set(MINIMUM) - {"logits", "cache", "choice"} <= set(CHECKS), "those are the workloads' own"
