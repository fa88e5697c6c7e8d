"""Which blocks recompute their activations in the backward pass."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import CheckpointImpl, checkpoint_wrapper

from benchrunner.arithmetic import checkpointed_blocks
from benchrunner.worker.model import Decoder


def checkpoint_blocks(decoder: Decoder, options: Mapping[str, Any]) -> None:
    """Wrap the chosen blocks, non-reentrant; random state is replayed only when dropout draws from it."""
    for index in checkpointed_blocks(len(decoder.blocks), options):
        decoder.blocks[index] = _wrap(decoder.blocks[index], uses_random_state=decoder.dropout.p > 0)


def _wrap(block: nn.Module, *, uses_random_state: bool) -> nn.Module:
    wrapped: nn.Module = checkpoint_wrapper(
        block, checkpoint_impl=CheckpointImpl.NO_REENTRANT, preserve_rng_state=uses_random_state
    )
    return wrapped


def keep_everything(decoder: Decoder, options: Mapping[str, Any]) -> None:
    """No checkpointing."""


APPLY: dict[str, Callable[[Decoder, Mapping[str, Any]], None]] = {
    "none": keep_everything,
    "full": checkpoint_blocks,
    "selective": checkpoint_blocks,
}
