"""A cell's process starts with a compiler that has done nothing, and so does every test of the worker."""

import sys

import pytest


@pytest.fixture(autouse=True)
def as_in_a_process_of_its_own():
    """Nothing compiled, nothing counted, no number drawn; and what a cell sets of the compilers goes with its test."""
    if "benchrunner.worker.axes.compile" not in sys.modules:
        yield  # nobody has used torch
        return
    import torch
    import torch._inductor.config

    torch.manual_seed(0)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    torch._dynamo.utils.cumulative_time_spent_ns.clear()
    modules = [torch._dynamo.config, torch._inductor.config]
    before = [module.get_config_copy() for module in modules]
    yield
    for module, settings in zip(modules, before, strict=True):
        for name, value in module.get_config_copy().items():
            if value != settings[name]:
                setattr(module, name, settings[name])
