"""What a model without gradients is asked: logits of a forward pass, and of a generation its logits and its cache.

The two sequences of a forward pass end in the same token. So the difference of their logits there is what the context
did, which in a small model is little beside what the token itself does.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from benchrunner.worker.context import Context
from benchrunner.worker.steps import data
from benchrunner.worker.steps.decoding import Decoding
from benchrunner.worker.validity.function_tolerances import FunctionErrors
from benchrunner.worker.validity.questions import PREFIX, STEP, sequences
from benchrunner.worker.validity.reference import Formulas, Source

NUM_DECODED = 3
"""Tokens that a question decodes: the first reads a cache that was exchanged, the others what it wrote."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """The formulas with the weights of the measured model."""

    formulas: Formulas
    source: Source

    def logits(self, tokens: Tensor, first: int) -> Tensor:
        """Of tokens [sequences, length], from the place `first` on."""
        *_, x = self.formulas.block_inputs(tokens, self.source)
        with self.source(None) as (weights, _):
            return self.formulas.logits(x[:, first:], weights)


def relative(found: Tensor, wanted: Tensor) -> float:
    """Norm of the difference ÷ norm of what is wanted."""
    error = float((found.float() - wanted).norm() / wanted.norm())
    return error if error == error else float("inf")


# --- a forward pass


def forward_errors(
    context: Context, judge: Judge, logits: Callable[[Tensor], Tensor], *, late: bool
) -> tuple[FunctionErrors, float]:
    """Errors of the logits, and by how much they moved with what stands behind; `late`: to the end of the sequence."""
    seq_len = context.cell.sizes.seq_len
    length = seq_len if late else max(1, min(PREFIX, seq_len // 2))
    asked = sequences(context.cell, length).to(context.device)
    asked[:, -1] = asked[0, -1]
    found = torch.cat([_place_logits(context, logits, row, one, 0) for row, one in enumerate(asked)])
    wanted = judge.logits(asked, length // 2)
    apart = relative(found[0, -1] - found[1, -1], wanted[0, -1] - wanted[1, -1]) if length > 1 else 0.0
    again = found[:1] if late else _place_logits(context, logits, 0, asked[0], 1)
    moved = float((again - found[:1]).abs().max())
    return FunctionErrors(logits=relative(found, wanted), context=apart), moved


def _place_logits(
    context: Context, logits: Callable[[Tensor], Tensor], row: int, sequence: Tensor, behind: int
) -> Tensor:
    """Logits [1, second half of the sequence, vocabulary] of the sequence in a row of the first measured batch."""
    cell, length = context.cell, len(sequence)
    batch = data.draw_step(cell, STEP, context.rank, context.device)[0]
    batch = (batch + behind) % cell.config.model.vocab_size
    row %= len(batch)
    batch[row, :length] = sequence
    found: Tensor = logits(batch)[row : row + 1, length // 2 : length].float().clone()
    return found


# --- a generation


def generation_errors(context: Context, judge: Judge, decoding: Decoding) -> FunctionErrors:
    """Errors of logits and cache of a prompt and of some tokens after it.

    Before the first of these, the prompt's part of the cache is exchanged for that of another prompt: what follows
    must be that of the other one.
    """
    prompt_length = context.cell.config.generate.prompt_length
    prompts = [data.draw_prompts(context.cell, sample, context.rank, context.device) for sample in (0, 1)]
    row = context.rank % len(prompts[0])
    with _heard(decoding) as heard:
        decoding.prefill(prompts[0])
    parts = [(layer.keys[row, :, :prompt_length].clone(), layer.values[row, :, :prompt_length].clone())
             for layer in decoding.cache.layers]  # fmt: skip
    decoding.prefill(prompts[1])
    for layer, (keys, values) in zip(decoding.cache.layers, parts, strict=True):
        layer.keys[row, :, :prompt_length], layer.values[row, :, :prompt_length] = keys, values
    num_decoded = min(NUM_DECODED, context.cell.config.generate.new_tokens - 1)
    if not _step_is_one_graph(context):
        with _heard(decoding) as decoded:
            _decode(decoding, num_decoded)
        heard += decoded
    else:
        _decode(decoding, num_decoded)
    tokens = torch.cat((prompts[0][row], decoding.progress.tokens[row, :num_decoded]))[None]
    errors = FunctionErrors(cache=_cache_error(judge, decoding, tokens, row, prompt_length))
    if heard:
        wanted = judge.logits(tokens, prompt_length - 1)[0, : len(heard)]
        found = torch.stack([logits[row, -1].float() for logits in heard])
        pairs = [relative(ours, theirs) for ours, theirs in zip(found, wanted, strict=True)]
        errors = errors.worst(FunctionErrors(logits=max(pairs)))
    return errors


def _decode(decoding: Decoding, num_tokens: int) -> None:
    for _ in range(num_tokens):
        decoding.step()


def _step_is_one_graph(context: Context) -> bool:
    """Whether nobody can see logits of a decode: they stay within the graph that chooses a token."""
    config = context.cell.config
    return (
        context.cell.axes["compile"] != "eager" and config.generate.unit == "token" and config.compile.scope == "model"
    )


@contextmanager
def _heard(decoding: Decoding) -> Iterator[list[Tensor]]:
    """The logits that tokens are chosen from inside, in their order."""
    found: list[Tensor] = []
    take = decoding._take

    def listen(logits: Tensor) -> None:
        found.append(logits.clone())
        take(logits)

    own = dict(vars(decoding))
    decoding._take = listen  # type: ignore[method-assign]
    try:
        yield found
    finally:  # to the letter: a graph looks whether it is the method or an attribute
        del decoding._take
        vars(decoding).update({name: value for name, value in own.items() if name == "_take"})


def _cache_error(judge: Judge, decoding: Decoding, tokens: Tensor, row: int, prompt_length: int) -> float:
    """The largest over layers, keys and values, prompt and decoded tokens."""
    errors = []
    for index, x in enumerate(judge.formulas.block_inputs(tokens, judge.source)):
        if index == judge.formulas.model.num_layers:
            break
        with judge.source(index) as (weights, _):
            wanted = judge.formulas.keys_and_values(x, weights)
        layer = decoding.cache.layers[index]
        for found, right in zip((layer.keys[row], layer.values[row]), wanted, strict=True):
            held = found[:, : tokens.shape[1]]
            errors += [relative(held[:, :prompt_length], right[0, :, :prompt_length])]
            if tokens.shape[1] > prompt_length:
                errors += [relative(held[:, prompt_length:], right[0, :, prompt_length:])]
    return max(errors)
