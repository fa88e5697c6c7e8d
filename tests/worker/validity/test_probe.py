"""Probe steps keep to their budget, and their arithmetic tells reduced gradients from others."""

import pytest
import torch

from benchrunner.core.checks import LEAST_BUDGET_S, budget_s
from benchrunner.worker.validity.probe import Probes, plan_probes, reduction_error


@pytest.mark.parametrize(
    ("step_s", "micro_steps", "planned"),
    [
        (0.0, 1, (3, 1)),
        (0.5, 1, (3, 1)),
        (0.5, 8, (3, 2)),
        (2.0, 1, (1, 1)),
        (8.0, 8, (3, 1)),
        (LEAST_BUDGET_S + 1, 1, (0, 0)),
    ],
)
def test_what_fits_the_budget(step_s, micro_steps, planned):
    assert plan_probes(step_s, micro_steps) == planned
    probes, each = planned
    assert probes * each * step_s / micro_steps <= LEAST_BUDGET_S
    assert probes * each <= 4 * micro_steps


def test_the_budget_grows_with_the_window():
    assert budget_s(2.0) == LEAST_BUDGET_S and budget_s(200.0) == 40.0
    assert plan_probes(8.0, 1, budget_s(160.0)) == (3, 1), "a step of 8 s is no reason to look at nothing"


def test_a_probe_that_failed_leaves_what_stood_before_it():
    probes = Probes(profile=object(), norms={"a": [1.0, 2.0]}, uniform=[{}, {}], mixed={})
    probes.forget("the second probe failed on rank 1", num_done=1)
    assert probes.profile and probes.norms == {"a": [1.0]} and len(probes.uniform) == 1 and probes.mixed is None
    probes.forget("the profiled probe failed on rank 1")
    assert probes.profile is None and probes.norms == {} and "rank 1" in probes.missing


def gradients():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(1000, generator=generator), torch.randn(1000, generator=generator)


@pytest.mark.parametrize("world_size", [2, 3, 8])
def test_the_mean_over_ranks_has_no_error_and_an_own_gradient_does(world_size):
    first, second = gradients()
    odd = world_size // 2
    mean = (first * (world_size - odd) + second * odd) / world_size
    assert reduction_error(first, second, mean, world_size) == pytest.approx(0.0, abs=1e-6)
    own = max(reduction_error(first, second, kept, world_size) for kept in (first, second))
    assert own >= 1 / 2 - 1e-6


def test_gradients_that_are_alike_cannot_tell():
    first, _ = gradients()
    assert reduction_error(first, first * 1.01, first, 2) is None
    assert reduction_error(torch.zeros(3), torch.zeros(3), torch.zeros(3), 2) is None
