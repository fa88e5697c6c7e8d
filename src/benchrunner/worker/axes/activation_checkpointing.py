"""Which activations are recomputed in the backward pass."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import (
    CheckpointImpl,
    CheckpointWrapper,
    checkpoint_wrapper,
)
from torch.utils.checkpoint import create_selective_checkpoint_contexts

from benchrunner.core.arithmetic import checkpointed_blocks
from benchrunner.core.schema import CheckpointingConfig
from benchrunner.worker.model.decoder import Decoder

Checkpoint = Callable[..., Any]
"""A library's own `checkpoint(block, *inputs)`, where torch's does not know what the library keeps."""

_aten = torch.ops.aten

KEPT_OPERATIONS = [
    _aten.mm.default,
    _aten.addmm.default,
    _aten.bmm.default,
    _aten.baddbmm.default,
    _aten._scaled_mm.default,
    _aten.max.default,  # one number a tensor: the scale of a float8 operand
    _aten._scaled_dot_product_flash_attention.default,
    _aten._scaled_dot_product_flash_attention_for_cpu.default,
    _aten._scaled_dot_product_efficient_attention.default,
    _aten._scaled_dot_product_cudnn_attention.default,
    _aten._scaled_dot_product_fused_attention_overrideable.default,
]
"""What `per_op` keeps: the products, and what each fused attention kernel returns. Everything else is cheap."""


def checkpoint_blocks(decoder: Decoder, options: CheckpointingConfig, checkpoint: Checkpoint | None = None) -> None:
    """Wrap the chosen blocks, non-reentrant; random state is replayed only when dropout draws from it."""
    per_operation = options.name == "selective" and options.every == "per_op"
    keep = {"context_fn": keep_products} if per_operation else {}
    for index in checkpointed_blocks(len(decoder.blocks), options):
        block = decoder.blocks[index]
        if checkpoint is None:
            wrapped = checkpoint_wrapper(block, CheckpointImpl.NO_REENTRANT, preserve_rng_state=_draws(block), **keep)
        else:
            assert not keep
            wrapped = LibraryCheckpoint(block, checkpoint_fn=checkpoint)
        decoder.blocks[index] = wrapped


def _draws(block: nn.Module) -> bool:
    """Whether the block drops values at random: the model's dropout, or a finetuning method's."""
    return any(isinstance(module, nn.Dropout) and module.p > 0 for module in block.modules())


keep_products = functools.partial(create_selective_checkpoint_contexts, KEPT_OPERATIONS)
"""Contexts of the first and of the recomputed forward pass, a pair for every call."""


class LibraryCheckpoint(CheckpointWrapper):
    """A block checkpointed by a library's own function, which compilers cannot look into."""


def compiled_part(block: nn.Module) -> nn.Module:
    """What to compile of a block: all of it, or what a library's checkpoint calls."""
    inner: nn.Module = block._checkpoint_wrapped_module if isinstance(block, LibraryCheckpoint) else block
    return inner


def keep_everything(decoder: Decoder, options: CheckpointingConfig, checkpoint: Checkpoint | None = None) -> None:
    """No checkpointing."""


APPLY: dict[str, Callable[[Decoder, CheckpointingConfig, Checkpoint | None], None]] = {
    "none": keep_everything,
    "full": checkpoint_blocks,
    "selective": checkpoint_blocks,
}
