"""The named fill: reproducible, independent of order and neighbours, and right in kind."""

import torch
from torch import nn

from benchrunner.worker.model.weights import canonical_name, fill_parameters, full_tensor

CPU = torch.device("cpu")


def filled(module, seed=0):
    fill_parameters(module, seed=seed, std=0.5, device=CPU)
    return {name: value.detach().clone() for name, value in module.named_parameters()}


def test_same_seed_and_name_give_the_same_bits_whatever_else_the_module_has():
    small = nn.ModuleDict({"a": nn.Linear(8, 8)})
    large = nn.ModuleDict({"z": nn.Linear(4, 4), "a": nn.Linear(8, 8)})
    assert torch.equal(filled(small)["a.weight"], filled(large)["a.weight"])


def test_seed_and_name_each_change_the_values():
    module = nn.ModuleDict({"a": nn.Linear(8, 8), "b": nn.Linear(8, 8)})
    values = filled(module)
    assert not torch.equal(values["a.weight"], values["b.weight"])
    assert not torch.equal(values["a.weight"], filled(module, seed=1)["a.weight"])


def test_matrices_are_normal_norms_are_one_biases_are_zero():
    values = filled(nn.Sequential(nn.Linear(256, 256), nn.LayerNorm(256)))
    assert abs(values["0.weight"].std().item() - 0.5) < 0.01
    assert values["0.bias"].abs().max() == 0 and values["1.bias"].abs().max() == 0
    assert torch.equal(values["1.weight"], torch.ones(256))


def test_lower_precisions_start_from_the_rounded_fp32_values():
    full, half = nn.Linear(16, 16), nn.Linear(16, 16).bfloat16()
    assert torch.equal(filled(full)["weight"].bfloat16(), filled(half)["weight"])


def test_names_are_those_of_the_bare_model():
    assert (
        canonical_name("module._orig_mod.blocks.0._checkpoint_wrapped_module.mlp.up.weight") == "blocks.0.mlp.up.weight"
    )
    shape = torch.Size((4, 4))
    assert torch.equal(
        full_tensor("a", shape, seed=3, std=1.0, device=CPU), full_tensor("a", shape, seed=3, std=1.0, device=CPU)
    )
