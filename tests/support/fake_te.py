"""A stand-in for Transformer Engine on machines without CUDA: its public surface as far as the worker uses it.

It computes in the given dtype, remembers how it was called, and refuses what the real one refuses.
"""

import contextlib
import sys
import types

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint as torch_checkpoint

from benchrunner.worker.axes.precision import float8_te


class Linear(nn.Module):
    calls: list

    def __init__(self, in_features, out_features, bias, params_dtype, device):
        super().__init__()
        assert device == "meta"
        self.in_features, self.out_features = in_features, out_features
        self.weight = nn.Parameter(torch.empty(out_features, in_features, dtype=params_dtype, device=device))
        self.bias = nn.Parameter(torch.empty(out_features, dtype=params_dtype, device=device)) if bias else None
        self.calls = []

    def _get_weight_and_bias_tensors(self):
        return self.weight, self.bias

    def forward(self, inp, is_first_microbatch=None):
        weight, bias = self._get_weight_and_bias_tensors()
        rows, inside = inp.numel() // inp.shape[-1], autocast.depth > 0
        assert inside, "called outside of autocast"
        if rows % 16 or any(size % 16 for size in weight.shape):
            raise ValueError(f"FP8 execution requires other sizes than {tuple(inp.shape)}, {tuple(weight.shape)}")
        self.calls.append(is_first_microbatch)
        return F.linear(inp, weight, bias)


class autocast(contextlib.AbstractContextManager):
    depth = 0
    updates: list = []  # noqa: RUF012

    def __init__(self, enabled, recipe, amax_reduction_group):
        self.recipe = recipe

    def __enter__(self):
        autocast.depth += 1

    def __exit__(self, *raised):
        autocast.depth -= 1
        if autocast.depth == 0 and torch.is_grad_enabled():
            autocast.updates.append(self.recipe)


def checkpoint(function, *inputs, use_reentrant, context_fn):
    """Opens fp8 anew in the recomputation, as the real one does."""
    assert use_reentrant is False

    @contextlib.contextmanager
    def recomputation(outer):
        with outer, autocast(True, "replayed", None):
            yield

    def contexts():
        first, again = context_fn()
        return first, recomputation(again)

    return torch_checkpoint(function, *inputs, use_reentrant=False, context_fn=contexts)


def recipe_class(name):
    return type(name, (), {"__init__": lambda self, **options: self.__dict__.update(options)})


@pytest.fixture
def fake_te(monkeypatch):
    """Install the stand-in for one test."""
    names = [
        "transformer_engine",
        "transformer_engine.pytorch",
        "transformer_engine.common",
        "transformer_engine.common.recipe",
    ]
    modules = {name: types.ModuleType(name) for name in names}
    te, recipe = modules["transformer_engine.pytorch"], modules["transformer_engine.common.recipe"]
    te.Linear, te.autocast, te.checkpoint = type("Linear", (Linear,), {}), autocast, checkpoint
    te.is_fp8_available = lambda return_reason: (True, "")
    te.is_fp8_block_scaling_available = lambda return_reason: (False, "needs CUDA 12.9")
    for name in ("DelayedScaling", "Float8CurrentScaling", "Float8BlockScaling"):
        setattr(recipe, name, recipe_class(name))
    recipe.Format = types.SimpleNamespace(HYBRID="hybrid")
    modules["transformer_engine"].pytorch, modules["transformer_engine.common"].recipe = te, recipe
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    autocast.depth, autocast.updates = 0, []
    forget()
    yield te
    forget()


def forget():
    for function in (float8_te.make_recipe, float8_te._linear_class, float8_te._padding_class):
        function.cache_clear()
