"""fp8 by torchao trains on a CPU: what it converts, what it computes, what it says."""

import pytest
import torch
from torch import nn

from benchrunner.core.errors import Unsupported
from benchrunner.worker.axes.precision import float8_torchao
from benchrunner.worker.engines.built import decoder_on_meta
from benchrunner.worker.engines.engine import build
from benchrunner.worker.steps.training_loop import TrainingLoop
from cells import make_cell, make_context
from quick_float8 import RECIPES

FEW = ("model.num_layers=2", "model.vocab_size=256", "seq_len=32", "micro_batch_size=2", "precision=fp8-torchao")
CPU = torch.device("cpu")


def converted(decoder):
    return {name for name, module in decoder.named_modules() if type(module).__name__.endswith("Float8Linear")}


def train(*words, steps=3):
    cell = make_cell(*FEW, *words)
    context = make_context(cell)
    loop = TrainingLoop(context, build(context))
    loop.prepare(range(steps))
    for step in range(steps):
        loop.step(step)
    return loop


def count_scaled_products(action):
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        action()
    return sum(row.count for row in profile.key_averages() if row.key == "aten::_scaled_mm")


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_converted_linear_multiplies_in_float8_three_times_a_step(recipe):
    loop = train(f"precision.recipe={recipe}", "precision.scope=all", steps=0)
    loop.prepare(range(1))
    assert count_scaled_products(lambda: loop.step(0)) == 3 * (2 * 4 + 1)
    assert loop.choices()["fp8"] == {"recipe": recipe, "num_linears": 9, "kept": {}, "padded": {}}


def test_scope_blocks_keeps_the_head():
    cell = make_cell(*FEW)
    decoder = decoder_on_meta(cell)
    choices = float8_torchao.convert(decoder, cell, CPU)
    assert len(converted(decoder)) == 8 and "head" not in converted(decoder)
    assert choices["fp8"]["kept"] == {"head": "precision.scope=blocks"}


def test_losses_follow_those_of_bf16():
    in_float8, in_bf16 = train().mean_losses(), train("precision=bf16").mean_losses()
    assert in_float8 != in_bf16
    torch.testing.assert_close(torch.tensor(in_float8), torch.tensor(in_bf16), atol=0.02, rtol=0)


def test_parameters_keep_their_names_and_start_as_in_bf16():
    (left, right) = (
        dict(train(*words, steps=0).built.decoder.named_parameters()) for words in ([], ["precision=bf16"])
    )
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)


def test_a_device_that_needs_multiples_refuses_others():
    cell = make_cell(*FEW, "model.d_ff=360")
    with pytest.raises(Unsupported, match="360"):
        float8_torchao.convert(decoder_on_meta(cell), cell, torch.device("cuda"))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("recipe", RECIPES)
def test_padding_computes_the_same_product(recipe, bias):
    from torchao.float8 import Float8LinearConfig

    torch.manual_seed(0)
    linear = nn.Linear(40, 72, bias=bias).bfloat16()
    padding = float8_torchao.padding_linear(linear, Float8LinearConfig.from_recipe_name(recipe))
    x = torch.randn(3, 5, 40, dtype=torch.bfloat16, requires_grad=True)
    y = padding(x)
    y.float().square().sum().backward()
    assert padding.weight is linear.weight and linear.weight.grad.shape == (72, 40) and x.grad.shape == x.shape
    expected = linear(x.detach())
    assert y.shape == expected.shape and (y - expected).norm() < 0.1 * expected.norm()


def test_a_padded_decoder_says_what_it_padded_and_trains():
    cell = make_cell(*FEW, "model.d_ff=360", "precision.pad=true")
    decoder = decoder_on_meta(cell)
    choices = float8_torchao.convert(decoder, cell, torch.device("cuda"))
    assert choices["fp8"]["padded"]["blocks.1.mlp.down"].startswith("360×")
    assert len(converted(decoder)) == 8
    assert decoder.blocks[0].mlp.down.weight.shape[1] == 360


@pytest.mark.slow
def test_compiled_it_computes_the_same():
    """With vectors of 256 bits: in those of AVX-512, Inductor (torch 2.13) transposes float8 into NaNs."""
    with torch._inductor.config.patch({"cpp.simdlen": 256}):
        eager, compiled = train().mean_losses(), train("compile=inductor").mean_losses()
    torch.testing.assert_close(torch.tensor(compiled), torch.tensor(eager), atol=5e-3, rtol=0)
