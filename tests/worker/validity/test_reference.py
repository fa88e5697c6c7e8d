"""The formulas alone: 4-bit weights against the library that packs them, and what is cut apart."""

import pytest
import torch

from benchrunner.worker.validity import reference
from benchrunner.worker.validity.reference import (
    NORMAL_FLOAT,
    Formulas,
    Question,
    dynamic_values,
    from_normal_float,
    from_scale_codes,
    gradients,
    losses,
)
from cells import make_cell

functional = pytest.importorskip("bitsandbytes.functional")


@pytest.mark.parametrize("doubly", [False, True])
def test_packed_weights_are_unpacked_as_the_library_does(doubly):
    matrix = torch.randn(96, 128)
    packed, state = functional.quantize_4bit(matrix, quant_type="nf4", compress_statistics=doubly)
    scales = state.absmax
    if doubly:
        scales = from_scale_codes(state.absmax, state.state2.absmax, state.offset)
    found = from_normal_float(packed.flatten().view(torch.uint8), scales, (96, 128))
    torch.testing.assert_close(found, functional.dequantize_4bit(packed, state), rtol=1e-5, atol=1e-6)


def test_code_books_are_the_published_ones():
    torch.testing.assert_close(torch.tensor(NORMAL_FLOAT), functional.get_4bit_type("nf4", device="cpu"))
    torch.testing.assert_close(torch.tensor(dynamic_values()), functional.create_dynamic_map())


def test_gradients_are_the_slopes_of_the_losses():
    config = make_cell("model.num_layers=2", "model.d_model=16", "model.num_heads=2", "model.vocab_size=8").config
    formulas = Formulas(model=config.model, workload=config.workload)
    torch.manual_seed(0)
    sizes = {"attention_norm.weight": (16,), "mlp_norm.weight": (16,), "attention.out.weight": (16, 16)}
    sizes |= {"attention.qkv.weight": ((2 + 2 * config.model.num_kv_heads) * 8, 16)}
    sizes |= {"mlp.gate_up.weight": (2 * config.model.d_ff, 16), "mlp.down.weight": (16, config.model.d_ff)}
    weights = {index: {name: torch.randn(size) / 3 for name, size in sizes.items()} for index in range(2)}
    outside = {"embedding.weight": (8, 16), "norm.weight": (16,), "head.weight": (8, 16)}
    weights[None] = {name: torch.randn(size) / 3 for name, size in outside.items()}
    assert {unit: set(found) for unit, found in weights.items()} == {u: formulas.names(u) for u in weights}

    def source(unit):
        import contextlib

        return contextlib.nullcontext((weights[unit], frozenset(weights[unit])))

    tokens = torch.randint(8, (3, 7))
    question = Question(tokens=tokens[:, :-1], targets=tokens[:, 1:], weights=torch.rand(3, 6).round(decimals=1))
    found = dict(gradients(formulas, source, question))
    before = losses(formulas, source, question).sum()
    assert set(found) == set(weights)
    for unit, slopes in found.items():
        for name, slope in slopes.items():
            step = torch.randn_like(slope) * 1e-3
            weights[unit][name] = weights[unit][name] + step
            moved = losses(formulas, source, question).sum() - before
            weights[unit][name] = weights[unit][name] - step
            assert float(moved) == pytest.approx(float((slope * step).sum()), rel=0.1, abs=2e-4), (unit, name)


def test_heads_attend_alike_one_by_one_and_together(monkeypatch):
    config = make_cell("model.d_model=32", "model.num_heads=4", "model.num_kv_heads=2", "workload=adapter").config
    formulas = Formulas(model=config.model, workload=config.workload)
    torch.manual_seed(0)
    sizes = {"qkv.weight": (64, 32), "out.weight": (32, 32), "adapter_prompt": (3, 32), "adapter_gate": (4,)}
    weights = {f"attention.{name}": torch.randn(size) for name, size in sizes.items()}
    x = torch.randn(2, 5, 32)
    together = formulas.attention(x, weights)
    monkeypatch.setattr(reference, "MOST_SCORES", 1)
    torch.testing.assert_close(formulas.attention(x, weights), together, rtol=1e-4, atol=1e-4)
