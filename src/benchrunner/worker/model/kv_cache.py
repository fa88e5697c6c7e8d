"""The static key-value cache of generation: allocated once, written in place, so that one compiled step fits all."""

import torch
from torch import Tensor

from benchrunner.core.schema import ModelConfig


class LayerCache:
    """Keys and values of one layer, each [batch, kv heads, length, head size]."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        self.keys = keys
        self.values = values
        self.shown: int | None = None
        """How many slots are attended to without a mask; None: all, under a mask."""

    def store(self, keys: Tensor, values: Tensor, positions: Tensor | None) -> tuple[Tensor, Tensor]:
        """Write new keys and values ([batch, kv heads, new, head size]); return those to attend to.

        Without `positions` the new ones are the start of the sequence and attend to themselves only (prefill);
        with them the cache is returned: the slots that are `shown`, or all, of which the caller masks those that are
        not written yet.
        """
        if positions is None:
            self.keys[:, :, : keys.shape[2]] = keys
            self.values[:, :, : values.shape[2]] = values
            return keys, values
        self.keys.index_copy_(2, positions, keys.to(self.keys.dtype))
        self.values.index_copy_(2, positions, values.to(self.values.dtype))
        if self.shown is None:
            return self.keys, self.values
        return self.keys[:, :, : self.shown], self.values[:, :, : self.shown]


class KVCache:
    """Keys and values of all layers, zero at first (an unwritten slot is masked, but NaN × 0 is NaN).

    Every tensor is one of its own and has a fixed address, which is what lets CUDA graphs write into it. Make it
    once and use it again for the next prompt: stale slots are masked.
    """

    def __init__(
        self, model: ModelConfig, batch_size: int, length: int, *, device: torch.device, dtype: torch.dtype
    ) -> None:
        head_size = model.d_model // model.num_heads
        shape = (batch_size, model.num_kv_heads, length, head_size)
        self.length = length
        self.shown: int | None = None
        self.slots = torch.arange(length, device=device)
        self.layers = [
            LayerCache(_static_zeros(shape, device, dtype), _static_zeros(shape, device, dtype))
            for _ in range(model.num_layers)
        ]

    def show(self, length: int | None) -> None:
        """Let the next token attend to the first `length` slots without a mask: for a caller that runs eagerly.

        None, as at first: to all slots under a mask, so that the shapes of all tokens are the same.
        """
        self.shown = length
        for layer in self.layers:
            layer.shown = length

    def mask(self, positions: Tensor) -> Tensor | None:
        """What tokens at `positions` [new] may attend to: bool [new, length], true where allowed; None: all shown."""
        return self.slots <= positions[:, None] if self.shown is None else None


def _static_zeros(shape: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    return static_address(torch.zeros(shape, device=device, dtype=dtype))


def static_address(tensor: Tensor) -> Tensor:
    """Tell the compiler that this input never moves, so that CUDA graphs use it in place.

    Not guarded by identity: one compiled block serves the caches of all layers.
    """
    torch._dynamo.mark_static_address(tensor, guard=False)
    return tensor
