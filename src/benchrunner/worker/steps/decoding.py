"""From one token to the next: cache, place and sampled tokens of a batch, all of them on the device.

A step writes its state in place at fixed addresses and returns nothing, so that every step is the same work (one
compiled graph, one CUDA graph) and the host never waits for a token.
"""

import functools

import torch
from torch import Tensor, nn

from benchrunner.core.cell import Cell
from benchrunner.worker.axes import compile
from benchrunner.worker.axes.precision.formats import activation_dtype
from benchrunner.worker.engines.built import Built
from benchrunner.worker.model.decoder import Decoder
from benchrunner.worker.model.kv_cache import KVCache, static_address
from benchrunner.worker.model.layers import Attention

NOT_YET = -1
"""Stands in `Progress.tokens` where no token was chosen."""


class Progress:
    """Where the sequences of a batch stand."""

    def __init__(self, batch_size: int, prompt_length: int, new_tokens: int, device: torch.device) -> None:
        self.prompt_length = prompt_length
        self.token = static_address(torch.zeros(batch_size, 1, dtype=torch.int64, device=device))
        """The last token, whose keys and values are not in the cache yet."""
        self.position = static_address(torch.zeros(1, dtype=torch.int64, device=device))
        """The place of that token in the sequence."""
        self.tokens = static_address(torch.zeros(batch_size, new_tokens, dtype=torch.int64, device=device))
        """All tokens chosen so far."""

    def restart(self) -> None:
        """Stand at the last token of a prompt."""
        self.position.fill_(self.prompt_length - 1)
        self.tokens.fill_(NOT_YET)

    def append(self, chosen: Tensor) -> None:
        """Take one more token, [batch, 1], for every sequence."""
        self.position.add_(1)
        self.tokens.index_copy_(1, self.position - self.prompt_length, chosen)
        self.token.copy_(chosen)


def choose(logits: Tensor, temperature: float, top_k: int | None) -> Tensor:
    """One token [batch, 1] for each of the last logits of [batch, length, vocabulary]; temperature 0 is greedy.

    A draw from p is the argmax of p over exponential noise: `torch.multinomial` would wait for the device.
    """
    last = logits[:, -1].float()
    if temperature == 0:
        return last.argmax(-1, keepdim=True)
    scaled = last / temperature
    if top_k is not None:
        smallest = torch.topk(scaled, top_k)[0][:, -1:]  # by its place: thunder's result has no names
        scaled = scaled.masked_fill(scaled < smallest, float("-inf"))
    probabilities = scaled.softmax(-1)
    return (probabilities / torch.empty_like(probabilities).exponential_()).argmax(-1, keepdim=True)


class Decoding:
    """A batch's cache and progress, and how the cell's compiler runs prefill and steps.

    With `generate.unit=model` the decoder is what is compiled and tokens are chosen eagerly after it. With `token`
    the choice is compiled too: into the same graph as the decoder when that is compiled as a whole, into one of its
    own when blocks are.
    """

    def __init__(self, built: Built, cell: Cell, device: torch.device) -> None:
        options, model = cell.config.generate, cell.config.model
        self._prompt_length, new_tokens = options.prompt_length, options.new_tokens
        self._temperature, self._top_k = options.temperature, options.top_k
        self._model, self._root, self._context = built.model, built.root, built.forward_context
        length, batch_size = self._prompt_length + new_tokens, cell.sizes.micro_batch_size
        self.cache = KVCache(model, batch_size, length, device=device, dtype=activation_dtype(cell))
        self.progress = Progress(batch_size, self._prompt_length, new_tokens, device)
        self._filled = 0
        is_eager = cell.axes["compile"] == "eager"
        self._shows = is_eager and not built.decoder.explicit_attention
        """Eagerly a token attends to the filled part of the cache; compiled, to all of it under a mask."""
        if not is_eager and cell.config.attention == "auto":
            write_attention_out(built.decoder)
        self._compile_steps(built, cell)

    def prefill(self, prompt: Tensor) -> None:
        """Process prompts [batch, prompt length] and choose the first new token of each."""
        self.progress.restart()
        self._filled = self._prompt_length
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        with self._context():
            logits = self._model(prompt, cache=self.cache, last_only=True)
        self._take(logits)

    def step(self) -> None:
        """Process the last token of every sequence and choose the next."""
        self._filled += 1
        if self._shows:
            self.cache.show(self._filled)
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        with self._context():
            self._step()

    def next_logits(self) -> Tensor:
        """The logits [batch, 1, vocabulary] after the last token, from the cache as it is, without the compiler."""
        self.cache.show(None)
        with torch.compiler.set_stance("force_eager"), self._context():
            return self._root(self.progress.token, cache=self.cache, positions=self.progress.position)  # type: ignore[no-any-return]

    def recomputed_logits(self, prompt: Tensor) -> Tensor:
        """What `next_logits` should be: from the whole sequence at once, without cache and compiler."""
        sequence = torch.cat((prompt, self.progress.tokens), 1)
        with torch.compiler.set_stance("force_eager"), self._context():
            return self._root(sequence, last_only=True)  # type: ignore[no-any-return]

    def _compile_steps(self, built: Built, cell: Cell) -> None:
        """Choose what is compiled together: see the class."""
        if cell.config.generate.unit == "model":
            return
        options, function = cell.config.compile, compile.COMPILERS[cell.axes["compile"]].function
        if options.scope == "block":
            self._take = function(self._take, options)  # type: ignore[method-assign]
        else:
            self._step = function(functools.partial(self._decode, built.root), options)  # type: ignore[method-assign]

    def _step(self) -> None:
        self._decode(self._model)

    def _decode(self, model: nn.Module) -> None:
        self._take(model(self.progress.token, cache=self.cache, positions=self.progress.position))

    def _take(self, logits: Tensor) -> None:
        self.progress.append(choose(logits, self._temperature, self._top_k))


def write_attention_out(decoder: Decoder) -> None:
    """Attention under a mask, which only decoding has, as plain operations for the compiler to fuse.

    Kernels made for long queries use few of a GPU's processors for a single one.
    """
    for module in decoder.modules():
        if isinstance(module, Attention):
            module.explicit = True
