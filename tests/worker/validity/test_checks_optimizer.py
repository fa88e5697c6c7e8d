"""One applied step is the rule that the label states, and no other."""

import pytest
import torch

from asking import ask
from benchrunner.core.schema import OptimizerConfig
from benchrunner.worker.validity.checks_optimizer import Sampled, adamw, optimizer, sgd

CLIPPED = "optimizer.clip_norm=0.1"
LIES = ["wrong_lr", "no_decay", "wrong_betas", "no_clipping", "other_optimizer", "piled_gradients", "seldom_updates"]


@pytest.mark.parametrize(
    ("rule", "precision"), [("adamw", "bf16"), ("adamw", "fp16-mixed"), ("sgd", "fp32"), ("paged-adamw", "fp32")]
)
def test_the_stated_rule_passes(rule, precision):
    found = ask(optimizer, None, f"optimizer={rule}", f"precision={precision}", CLIPPED)
    assert found.ok is True, found


@pytest.mark.parametrize("workload", ["lora", "adapter"])
def test_the_stated_rule_passes_where_few_parameters_train(workload):
    start = ["workload.adapter_start_layer=1"] if workload == "adapter" else []
    assert ask(optimizer, None, f"workload={workload}", *start, "precision=bf16").ok is True


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        *((kind, ["precision=fp32"]) for kind in LIES),
        *(pytest.param(kind, ["precision=bf16"], marks=pytest.mark.slow) for kind in LIES if kind != "no_decay"),
        *(
            pytest.param(kind, ["precision=fp32", "optimizer=sgd"], marks=pytest.mark.slow)
            for kind in LIES
            if kind != "wrong_betas"
        ),
        *((kind, ["precision=bf16", "workload=lora"]) for kind in ["wrong_lr", "other_optimizer"]),
    ],
)
def test_another_rule_fails(kind, words):
    found = ask(optimizer, kind, *words, CLIPPED)
    assert found.ok is False, found


def test_an_update_that_is_too_long_is_made_of_fewer_micro_batches():
    long = ["global_batch_size=64", "precision=fp32", CLIPPED]
    assert ask(optimizer, None, *long, step_s=20.0).ok is True
    assert ask(optimizer, "wrong_lr", *long, step_s=20.0).ok is False
    assert ask(optimizer, None, "precision=fp32", step_s=20.0).note == "the budget has no room for a step"


def test_a_workload_without_updates_is_not_judged():
    assert ask(optimizer, None, "workload=forward").ok is None


@pytest.mark.parametrize(("rule", "make"), [(adamw, torch.optim.AdamW), (sgd, torch.optim.SGD)])
def test_rules_are_those_of_torch(rule, make):
    options = OptimizerConfig(name="", lr=0.1, weight_decay=0.3)
    parameter = torch.nn.Parameter(torch.randn(50, dtype=torch.float64))
    theirs = make([parameter], lr=options.lr, weight_decay=options.weight_decay)
    value, moments = parameter.detach().clone(), ()
    for step in range(4):
        gradient = torch.randn(50, dtype=torch.float64)
        value, moments = rule(Sampled(value=value, gradient=gradient, moments=moments, num_steps=step), options)
        parameter.grad = gradient
        theirs.step()
    torch.testing.assert_close(value, parameter.detach())
