"""What fp8 takes: the choice of linears, the sizes, the padding."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from benchrunner.core.errors import Unsupported
from benchrunner.worker.axes.precision import float8
from benchrunner.worker.engines.built import decoder_on_meta
from cells import make_cell

FEW = ("model.num_layers=1", "seq_len=32", "precision=fp8")


def names(*words):
    cell = make_cell(*FEW, *words)
    return set(float8.float8_linears(decoder_on_meta(cell), cell))


def test_scope_chooses_the_linears():
    blocks = {f"blocks.0.{name}" for name in ("attention.qkv", "attention.out", "mlp.gate_up", "mlp.down")}
    assert names("precision.scope=all") == blocks | {"head"}
    assert names("precision.scope=blocks") == blocks
    assert names("precision.scope=all", "model.tie_embeddings=true") == blocks


def test_a_tied_head_says_why_it_is_kept():
    cell = make_cell(*FEW, "model.tie_embeddings=true")
    assert "embedding" in float8.kept_linears(decoder_on_meta(cell), cell)["head"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["model.d_ff=360"], r"mlp\.gate_up is \d+ × 720$|mlp\.down is 360 × "),
        (["model.vocab_size=65"], r"head is \d+ × 65"),
        (["seq_len=30"], "multiples of 16 rows, and a micro-batch has 30"),
        (["seq_len=24", "micro_batch_size=3"], "a micro-batch has 72"),
    ],
)
def test_sizes_that_do_not_fit_are_refused_with_the_numbers(words, said):
    cell = make_cell(*FEW, "precision.scope=all", *words)
    linears = float8.float8_linears(decoder_on_meta(cell), cell)
    with pytest.raises(Unsupported, match=said):
        float8.check_sizes(linears, cell)
    padded = make_cell(*FEW, "precision.scope=all", "precision.pad=true", *words)
    float8.check_sizes(linears, padded)
    assert float8.describe(decoder_on_meta(padded), linears, padded, padded=True)["padded"]


def test_sizes_that_fit_pass_and_nothing_is_said_to_be_padded():
    cell = make_cell(*FEW, "precision.pad=true")
    decoder = decoder_on_meta(cell)
    linears = float8.float8_linears(decoder, cell)
    float8.check_sizes(linears, cell)
    assert float8.describe(decoder, linears, cell, padded=True)["padded"] == {}


def test_no_linear_to_convert_is_refused():
    with pytest.raises(Unsupported, match="no linear"):
        float8.check_sizes({}, make_cell(*FEW))


def test_rows_of_a_decode_are_its_sequences():
    cell = make_cell(*FEW, "workload=generate", "micro_batch_size=8")
    assert (float8.num_rows(cell), float8.rows_multiple(cell)) == (8, 8)


def test_padding_changes_no_value():
    generator = torch.Generator().manual_seed(0)
    linear = nn.Linear(20, 33, bias=False)
    x = torch.randn(2, 7, 20, generator=generator, requires_grad=True)
    seen = []

    def multiply(rows):
        seen.append(tuple(rows.shape))
        return rows @ float8.pad_matrix(linear.weight).t()

    y = float8.call_padded(x, 33, multiply)
    torch.testing.assert_close(y, linear(x))
    assert seen == [(16, 32)] and float8.pad_matrix(linear.weight).shape == (48, 32)
    (padded,) = torch.autograd.grad(y.square().sum(), linear.weight)
    (plain,) = torch.autograd.grad(F.linear(x, linear.weight).square().sum(), linear.weight)
    torch.testing.assert_close(padded, plain)
