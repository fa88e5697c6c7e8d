"""Fill each parameter from a generator seeded by (seed, its name): all strategies start from the same weights."""

import hashlib
import re

import torch
from torch import nn
from torch.distributed.tensor import DTensor, distribute_tensor

_WRAPPERS = re.compile(r"(_checkpoint_wrapped_module|_orig_mod|_fsdp_wrapped_module|_forward_module|module)\.")


def canonical_name(name: str) -> str:
    """A parameter's name without the prefixes that wrappers (checkpointing, compile, DDP) put into it."""
    return _WRAPPERS.sub("", name)


def named_generator(seed: int, name: str, device: torch.device) -> torch.Generator:
    """A generator on `device` whose stream depends on (seed, name) alone."""
    number = int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:8], "little") >> 1
    return torch.Generator(device).manual_seed(number)


ZERO_AT_FIRST = ("bias", "lora_b_query", "lora_b_value", "adapter_gate")
"""Ends of the names of parameters that start at zero: a finetuning method starts from the base model's function."""


def full_tensor(name: str, shape: torch.Size, *, seed: int, std: float, device: torch.device) -> torch.Tensor:
    """The whole initial value of a parameter, fp32: matrices N(0, std), weights of norms and scales one, biases zero.

    LoRA's A has the spread of torch's linear layers, 1 / √(3 · inputs), and its B is zero.
    """
    if name.endswith(ZERO_AT_FIRST) or len(shape) == 1:
        fill = 0.0 if name.endswith(ZERO_AT_FIRST) else 1.0
        return torch.full(shape, fill, dtype=torch.float32, device=device)
    if name.endswith("lora_a"):
        std = (3 * shape[1]) ** -0.5
    generator = named_generator(seed, name, device)
    return torch.empty(shape, dtype=torch.float32, device=device).normal_(0.0, std, generator=generator)


@torch.no_grad()
def fill_parameters(module: nn.Module, *, seed: int, std: float, device: torch.device) -> None:
    """Fill all parameters in place; a DTensor's rank keeps its shard of the full value, without communication.

    Packed weights are left alone: they were quantised from their full value.
    """
    for raw_name, parameter in module.named_parameters():
        if hasattr(parameter, "quant_state"):
            continue
        name = canonical_name(raw_name)
        full = full_tensor(name, parameter.shape, seed=seed, std=std, device=device).to(parameter.dtype)
        if isinstance(parameter, DTensor):
            mesh, placements = parameter.device_mesh, parameter.placements
            parameter.to_local().copy_(distribute_tensor(full, mesh, placements, src_data_rank=None).to_local())
        else:
            parameter.copy_(full)
