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
    moved = relative(again, found[:1])
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


def generation_errors(context: Context, judge: Judge, decoding: Decoding, *, late: bool) -> FunctionErrors:
    """Errors of logits and cache of a prompt and of some tokens after it; `late`: of a sample's last token too.

    Before the first of these tokens, the prompt's part of the cache is exchanged for that of another prompt: what
    follows must be that of the other one.
    """
    prompt_length = context.cell.config.generate.prompt_length
    prompts = [data.draw_prompts(context.cell, sample, context.rank, context.device) for sample in (0, 1)]
    rows = _rows(context.rank, len(prompts[0]))
    with listening(decoding) as heard:
        decoding.prefill(prompts[0])
    parts = [
        (layer.keys[rows, :, :prompt_length], layer.values[rows, :, :prompt_length]) for layer in decoding.cache.layers
    ]
    decoding.prefill(prompts[1])
    _write(decoding, rows, parts)
    num_decoded = min(NUM_DECODED, context.cell.config.generate.new_tokens - 1)
    heard += _decode(context, decoding, num_decoded)
    tokens = torch.cat((prompts[0][rows], decoding.progress.tokens[rows, :num_decoded]), 1)
    errors = FunctionErrors(cache=_cache_error(judge, decoding, tokens, rows, prompt_length))
    num_heard = 1 if step_is_one_graph(context) else 1 + num_decoded
    wanted = judge.logits(tokens, prompt_length - 1)[:, :num_heard]
    errors = errors.worst(FunctionErrors(logits=_logits_error(heard, wanted, rows)))
    if late and num_decoded and not step_is_one_graph(context):
        return errors.worst(_last_token_errors(context, judge, decoding, rows[0]))
    return errors


def _rows(rank: int, num_sequences: int) -> list[int]:
    """The sequences of a batch that are looked at: two, if there are, and others on every rank."""
    first = rank % num_sequences
    return sorted({first, num_sequences - 1 - first})


def _logits_error(heard: list[Tensor], wanted: Tensor, rows: list[int]) -> float:
    """The largest of a token's; as many must have been heard as there were tokens to choose."""
    if len(heard) != wanted.shape[1]:
        return float("inf")
    found = torch.stack([logits[rows, -1].float() for logits in heard], 1)
    pairs = zip(found.flatten(0, 1), wanted.flatten(0, 1), strict=True)
    return max(relative(ours, theirs) for ours, theirs in pairs)


def _last_token_errors(context: Context, judge: Judge, decoding: Decoding, row: int) -> FunctionErrors:
    """Of a sample's last token, decoded from a cache that the formulas have filled; twice, with another context."""
    options = context.cell.config.generate
    asked = sequences(context.cell, options.prompt_length + options.new_tokens - 1).to(context.device)
    asked[:, -1] = asked[0, -1]
    kept = list(_kept(judge, asked))
    heard = []
    for index, sequence in enumerate(asked):
        _write(
            decoding,
            [row],
            [(keys[index : index + 1, :, :-1], values[index : index + 1, :, :-1]) for keys, values in kept],
        )
        _stand_at(decoding, len(sequence) - 1, sequence[-1])
        heard += _decode(context, decoding, 1)
    wanted = judge.logits(asked, asked.shape[1] - 1)[:, 0]
    if len(heard) != len(asked):
        return FunctionErrors(logits=float("inf"))
    found = torch.stack([logits[row, -1].float() for logits in heard])
    return FunctionErrors(
        logits=max(relative(ours, theirs) for ours, theirs in zip(found, wanted, strict=True)),
        context=relative(found[0] - found[1], wanted[0] - wanted[1]),
    )


def _kept(judge: Judge, tokens: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Keys and values of every layer, as the formulas have them."""
    for index, x in enumerate(judge.formulas.block_inputs(tokens, judge.source)):
        if index < judge.formulas.model.num_layers:
            with judge.source(index) as (weights, _):
                yield judge.formulas.keys_and_values(x, weights)


def _write(decoding: Decoding, rows: list[int], parts: list[tuple[Tensor, Tensor]]) -> None:
    """Put keys and values of every layer at the start of the cache."""
    for layer, (keys, values) in zip(decoding.cache.layers, parts, strict=True):
        layer.keys[rows, :, : keys.shape[2]] = keys.to(layer.keys.dtype)
        layer.values[rows, :, : values.shape[2]] = values.to(layer.values.dtype)


def _stand_at(decoding: Decoding, place: int, token: Tensor) -> None:
    """Let the next step process a token at a place of the sequence."""
    decoding.progress.position.fill_(place)
    decoding.progress.token.fill_(int(token))
    decoding._filled = place


def _decode(context: Context, decoding: Decoding, num_tokens: int) -> list[Tensor]:
    """The logits of so many tokens, where they can be heard."""
    if step_is_one_graph(context):
        _step(decoding, num_tokens)
        return []
    with listening(decoding) as heard:
        _step(decoding, num_tokens)
    return heard


def _step(decoding: Decoding, num_tokens: int) -> None:
    for _ in range(num_tokens):
        decoding.step()


def step_is_one_graph(context: Context) -> bool:
    """Whether nobody can see logits of a decode: they stay within the graph that chooses a token."""
    config = context.cell.config
    return (
        context.cell.axes["compile"] != "eager" and config.generate.unit == "token" and config.compile.scope == "model"
    )


@contextmanager
def listening(decoding: Decoding) -> Iterator[list[Tensor]]:
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


def _cache_error(judge: Judge, decoding: Decoding, tokens: Tensor, rows: list[int], prompt_length: int) -> float:
    """The largest over layers, keys and values, prompt and decoded tokens."""
    errors = []
    for layer, wanted in zip(decoding.cache.layers, _kept(judge, tokens), strict=True):
        for found, right in zip((layer.keys[rows], layer.values[rows]), wanted, strict=True):
            held = found[:, :, : tokens.shape[1]]
            errors += [relative(held[:, :, :prompt_length], right[:, :, :prompt_length])]
            if tokens.shape[1] > prompt_length:
                errors += [relative(held[:, :, prompt_length:], right[:, :, prompt_length:])]
    return max(errors)
