"""Each check has a lie that no other sees: switched off, it would let that through."""

import re

import pytest

from benchrunner.core.checks import MINIMUM
from benchrunner.core.faults import parse_fault
from benchrunner.core.paths import CHECKOUT
from benchrunner.worker.__main__ import load_workload
from benchrunner.worker.faults.plant import planted
from benchrunner.worker.validity.checks import CHECKS
from cells import make_cell, make_context
from judged import failed, run_job

SMALL = ["model.num_layers=2", "model.vocab_size=256", "seq_len=32", "measure.steps=4", "measure.warmup_steps=1"]
GENERATE = ["workload=generate", "generate.prompt_length=16", "generate.new_tokens=8", "generate.num_samples=3"]
FULL = "activation_checkpointing=full"

ALONE = {
    "shape": ("counted_twice", ["model.tie_embeddings=true"]),
    "first_loss": ("small_weights", []),
    "precision": ("no_convert", ["precision=bf16-mixed"]),
    "formats": ("coarse_loss", []),
    "labels": ("unfused", []),
    "mode": ("eval_mode", []),
    "data": ("few_tokens", []),
    "trains": ("idle_window", []),
    "compiled": ("other_compiler", ["compile=inductor"]),
    "recompute": ("kept_products", [FULL]),
    "work": ("claimed_twice", []),
    "steps": ("fewer_steps", []),
    "function": ("sharp_attention", []),
    "optimizer": ("wrong_lr", []),
    "choice": ("greedy", GENERATE),
}
WITH_OTHERS = {
    "gradients_reduced": "other_sync|strategy=ddp global_batch_size=4",
    "sharded": "one_unit|strategy=fsdp_stage3",
}
"""The same, on two ranks."""
SECOND = {"logits", "cache"}
"""They see nothing that `function` does not, but need no formulas: of the largest models they are what is left."""


def test_every_check_is_here():
    assert set(ALONE) | set(WITH_OTHERS) | SECOND == set(CHECKS) | set(MINIMUM)


def test_every_check_is_on_the_page():
    rows = re.findall(r"^\| `(\w+)` \|", (CHECKOUT / "docs" / "metrics.md").read_text(), re.MULTILINE)
    assert sorted((set(CHECKS) | set(MINIMUM)) - set(rows)) == [], "docs/metrics.md says what each holds"


@pytest.mark.slow
@pytest.mark.parametrize("check", ALONE)
def test_no_other_check_sees_it(check):
    lie, words = ALONE[check]
    context = make_context(make_cell(*SMALL, *words))
    with planted(parse_fault(lie), context):
        result = load_workload(context.cell.axes["workload"])(context)
    assert failed(result) == {check}, result["checks"]


@pytest.mark.slow
@pytest.mark.parametrize("check", WITH_OTHERS)
def test_no_other_check_sees_it_on_two_ranks(tmp_path_factory, check):
    lie, _, words = WITH_OTHERS[check].partition("|")
    for (result,) in run_job([f"{lie}|{' '.join(SMALL)} {words}"], tmp_path_factory):
        assert failed(result) == {check}, result["checks"]
