"""One decoder for every model family; `conf/model` gives the shape.

It is built on the meta device without values: `worker/weights.py` fills parameters by name, `reset_buffers` the rest.
Each parameter is used inside the forward of its own module or of the root, so blocks and root can be sharded,
checkpointed, compiled and replicated as they are.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from benchrunner.core.schema import ModelConfig
from benchrunner.worker.model.kv_cache import KVCache, LayerCache
from benchrunner.worker.model.layers import Attention, make_mlp, make_norm, rotary_tables

IGNORED_TARGET = -100
"""Targets with this value (padding) do not count in the loss."""


class Block(nn.Module):
    """Attention and MLP, each after a norm and added to the residual: one after the other, or side by side."""

    def __init__(self, model: ModelConfig, *, explicit_attention: bool) -> None:
        super().__init__()
        self.parallel = bool(model.parallel_residual)
        self.attention_norm = make_norm(model)
        self.attention = Attention(model, explicit=explicit_attention)
        self.mlp_norm = None if self.parallel and model.shared_norm else make_norm(model)
        self.mlp = make_mlp(model)
        self.dropout = nn.Dropout(model.dropout)

    def forward(
        self,
        x: Tensor,
        cos: Tensor | None,
        sin: Tensor | None,
        mask: Tensor | None = None,
        cache: LayerCache | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        """x [batch, length, width] → the same; see `Decoder.forward` for the other arguments."""
        normed = self.attention_norm(x)
        attended = self.dropout(self.attention(normed, cos, sin, mask, cache, positions))
        if self.parallel:
            fed = self.mlp(normed if self.mlp_norm is None else self.mlp_norm(x))
            return x + attended + self.dropout(fed)  # type: ignore[no-any-return]
        x = x + attended
        return x + self.dropout(self.mlp(x if self.mlp_norm is None else self.mlp_norm(x)))  # type: ignore[no-any-return]


class Decoder(nn.Module):
    """A decoder-only transformer.

    `model` is the configuration's `model` mapping. With `loss_chunk_tokens`, head and loss are computed for so many
    tokens at a time and again in the backward pass. `num_positions` lengthens the rotary tables beyond
    `max_seq_len`.
    """

    cos: Tensor | None
    sin: Tensor | None
    positions: Tensor

    def __init__(
        self,
        model: ModelConfig,
        *,
        loss_chunk_tokens: int | None = None,
        explicit_attention: bool = False,
        num_positions: int | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.loss_chunk_tokens = loss_chunk_tokens
        self.explicit_attention = explicit_attention
        self.embedding = nn.Embedding(model.vocab_size, model.d_model)
        if model.positions == "learned":
            self.position_embedding = nn.Embedding(model.max_seq_len, model.d_model)
        self.dropout = nn.Dropout(model.dropout)
        blocks = [Block(model, explicit_attention=explicit_attention) for _ in range(model.num_layers)]
        self.blocks = nn.ModuleList(blocks)
        self.norm = make_norm(model)
        self.head = nn.Linear(model.d_model, model.vocab_size, bias=model.head_bias)
        self.tie_weights()
        self._add_buffers(max(num_positions or 0, model.max_seq_len))

    def _add_buffers(self, num_positions: int) -> None:
        self.num_positions = num_positions
        for name in ("cos", "sin", "positions"):
            self.register_buffer(name, None, persistent=False)
        self.reset_buffers(self.embedding.weight.device)

    def tie_weights(self) -> None:
        """Make the head's matrix the embedding's; to be called again after `to_empty`, which parts them."""
        if self.model.tie_embeddings:
            self.head.weight = self.embedding.weight

    def reset_buffers(self, device: torch.device, dtype: torch.dtype | None = None) -> None:
        """Compute positions and rotary tables on `device`.

        `dtype` is that of the queries, so that nothing is cast or promoted in a step; None: the parameters'.
        """
        self.positions = torch.arange(self.num_positions, device=device)
        if self.model.positions == "rotary":
            cos, sin = rotary_tables(self.model, self.num_positions, device)
            dtype = dtype or self.embedding.weight.dtype
            self.cos, self.sin = cos.to(dtype), sin.to(dtype)

    def forward(
        self,
        tokens: Tensor,
        targets: Tensor | None = None,
        *,
        cache: KVCache | None = None,
        positions: Tensor | None = None,
        last_only: bool = False,
    ) -> Tensor:
        """Logits [batch, length, vocabulary] of tokens [batch, length], or their loss when there are targets.

        The loss is the fp32 mean over targets that are not -100. With a cache and no positions the tokens are the
        start of the sequences (prefill); with both they stand at `positions` [length] and attend to what the cache
        holds up to there (decode). `last_only` computes the logits of the last token alone.
        """
        hidden = self.hidden(tokens, cache, positions)
        if targets is not None:
            return self.head_loss(hidden, targets)
        return self.logits(hidden[:, -1:] if last_only else hidden)

    def hidden(self, tokens: Tensor, cache: KVCache | None = None, positions: Tensor | None = None) -> Tensor:
        """The last block's output [batch, length, width]."""
        cos, sin = self._at_positions(self.cos, tokens, positions), self._at_positions(self.sin, tokens, positions)
        mask = self._mask(tokens, cache, positions)
        x = self.dropout(self._embed(tokens, positions))
        if cache is None and mask is None:
            for block in self.blocks:
                x = block(x, cos, sin)
            return x  # type: ignore[no-any-return]
        for index, block in enumerate(self.blocks):
            x = block(x, cos, sin, mask, cache.layers[index] if cache else None, positions)
        return x  # type: ignore[no-any-return]

    def _embed(self, tokens: Tensor, positions: Tensor | None) -> Tensor:
        x: Tensor = self.embedding(tokens)
        if self.model.positions == "rotary":
            return x
        return x + self.position_embedding(self._at_positions(self.positions, tokens, positions))  # type: ignore[no-any-return]

    def _at_positions(self, table: Tensor | None, tokens: Tensor, positions: Tensor | None) -> Tensor | None:
        if table is None:
            return None
        return table[: tokens.shape[1]] if positions is None else table[positions]

    def _mask(self, tokens: Tensor, cache: KVCache | None, positions: Tensor | None) -> Tensor | None:
        """What may be attended to, bool [length, keys]; None means causal among the tokens themselves."""
        if cache is not None and positions is not None:
            return cache.mask(positions)
        if not self.explicit_attention:
            return None
        own = self.positions[: tokens.shape[1]]
        return own <= own[:, None]

    def logits(self, hidden: Tensor) -> Tensor:
        """Final norm and head: hidden [..., width] → [..., vocabulary]."""
        return self.head(self.norm(hidden))  # type: ignore[no-any-return]

    def head_loss(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """The fp32 mean cross-entropy of hidden [batch, length, width] against targets [batch, length].

        bf16 cross-entropy would round to 1/16 near 10. A method of its own so that it can be compiled alone.
        """
        flat, flat_targets = hidden.flatten(0, 1), targets.flatten()
        count = (flat_targets != IGNORED_TARGET).sum()
        if self.loss_chunk_tokens is None:
            return self.loss_sum(flat, flat_targets) / count
        total = torch.zeros((), device=flat.device)
        chunks = torch.split(flat, self.loss_chunk_tokens), torch.split(flat_targets, self.loss_chunk_tokens)
        for chunk, chunk_targets in zip(*chunks, strict=True):
            total = total + checkpoint(self.loss_sum, chunk, chunk_targets, use_reentrant=False)
        return total / count

    def loss_sum(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """The fp32 sum of the cross-entropy of hidden [tokens, width] against targets [tokens]."""
        logits = self.logits(hidden).float()
        return F.cross_entropy(logits, targets, ignore_index=IGNORED_TARGET, reduction="sum")
