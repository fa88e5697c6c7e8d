"""The estimate of what rounding does to a gradient, by sums that are known."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml

from benchrunner.worker.validity import inquiry
from benchrunner.worker.validity.function_tolerances import FunctionErrors
from benchrunner.worker.validity.rounding import DTYPES, Rounded, unit_roundoff
from cells import make_cell

PRECISIONS = Path(__file__).parents[3] / "conf" / "precision"


def test_every_precision_computes_in_a_format_whose_rounding_is_known():
    assert {yaml.safe_load(path.read_text())["compute_dtype"] for path in PRECISIONS.glob("*.yaml")} <= DTYPES.keys()


def rounded(roundoff):
    config = make_cell("precision=bf16").config
    assert unit_roundoff(config.precision) == 2**-8
    return Rounded(model=config.model, workload=config.workload, roundoff=roundoff)


def attended(formulas):
    """The result and its gradient by queries, where every place has nearly the same value."""
    generator = torch.Generator().manual_seed(0)
    query, key, value = torch.randn(3, 1, 16, 16, generator=generator)
    query.requires_grad_()
    result = formulas.attend(query, key, 1 + 1e-3 * value, torch.ones(16, 16).tril().bool())
    result.sum().backward()
    return result.detach(), query.grad


def test_rounding_moves_a_result_by_its_size_and_a_small_difference_by_more_than_it_is_long():
    (exact, slope), (moved, shaken) = attended(rounded(0.0)), attended(rounded(2**-8))
    assert 0 < float((moved - exact).norm() / exact.norm()) < 2 * 2**-8
    assert float((shaken - slope).norm() / slope.norm()) > 1


def test_without_rounding_it_is_the_formula():
    exact = attended(rounded(0.0))
    plain = torch.softmax(torch.zeros(2), 0)  # every place counts the same where nothing tells them apart
    assert exact[0].mean() == pytest.approx(2 * float(plain[0]), abs=0.01)


def test_a_gradient_where_there_should_be_none_is_explained_by_no_rounding(monkeypatch):
    monkeypatch.setattr(inquiry, "_moved_by_rounding", lambda *asked: {})  # what is 0 stays so, however it is rounded
    facts = SimpleNamespace(exchange=SimpleNamespace(most=lambda *values: values))
    limits = FunctionErrors(gradient=0.1)
    asked = inquiry.Inquiry(facts=facts, loop=None, formulas=None, limits=limits, num_micro=1)
    parts = {"blocks.0.attention.qkv.lora_a (query)": (inquiry.MOST_ERROR, inquiry.MOST_ERROR, 64)}
    assert asked._unexplained(None, parts) == parts
