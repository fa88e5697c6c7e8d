"""Are tokens chosen as the label says: the choice that decoding makes is given logits of our own, and counted."""

import math

import torch
from torch import Tensor

from benchrunner.worker.steps import data
from benchrunner.worker.steps.decoding import Decoding
from benchrunner.worker.validity.finding import Facts, Finding, unknown
from benchrunner.worker.validity.inference_questions import listening, step_is_one_graph

NUM_DRAWS = 256
"""At least, over all sequences of a batch."""
NUM_LIKELY = 16
"""Tokens that may be drawn where all may; of `top_k` twice as many are likely as may be drawn."""
RATIO = 32.0
"""Probability of the likeliest ÷ that of the least likely of them."""
NEVER = -60.0
"""Logarithm of the probability of every other token."""
DEVIATIONS = 6.0
"""By so many standard deviations the mean place of drawn tokens may be off: one in 10⁹ is so by chance."""


def choice(facts: Facts) -> Finding:
    """Greedy at temperature 0, else drawn by the softmax at the temperature, from the `top_k` likeliest if told so."""
    decoding, options = facts.decoding, facts.cell.config.generate
    if decoding is None:
        return unknown("this workload chooses no tokens")
    if step_is_one_graph(facts.context):
        return unknown("one graph decodes and chooses: the choice cannot be asked alone")
    told = f"tokens drawn at temperature {options.temperature:g}" if options.temperature else "the likeliest token"
    told += f" from the {options.top_k} likeliest" if options.top_k else ""
    logits, shares = _likely(facts, _logits_dtype(facts, decoding))
    places = _drawn_places(facts, decoding, logits)
    if bool((places >= len(shares)).any()):
        return Finding(ok=False, expected=told, observed="a token that is not among them")
    mean, deviation = _moments(shares)
    allowed, found = DEVIATIONS * deviation / math.sqrt(places.numel()), float(places.double().mean())
    return Finding(
        ok=abs(found - mean) <= allowed,
        expected=f"{told}: mean place {mean:.2f} ± {allowed:.2f}, from the likeliest",
        observed=f"{found:.2f} of {places.numel()} tokens",
    )


def _logits_dtype(facts: Facts, decoding: Decoding) -> torch.dtype:
    """In which the measured model gives them: a compiled choice takes no others."""
    with listening(decoding) as heard:
        decoding.prefill(data.draw_prompts(facts.cell, 0, facts.context.rank, facts.context.device))
    return heard[0].dtype


def _likely(facts: Facts, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Logits of the likely tokens, the largest first, and the shares of draws that those have that may be drawn."""
    options, vocab_size = facts.cell.config.generate, facts.cell.config.model.vocab_size
    temperature, num = options.temperature or 1.0, min(vocab_size, 2 * options.top_k if options.top_k else NUM_LIKELY)
    logits = -torch.arange(num, dtype=torch.float64) * math.log(RATIO) / max(1, num - 1) * temperature
    logits = logits.to(dtype)
    rounded = logits.double()
    may_be = 1 if not options.temperature else min(options.top_k or num, num)
    kept = rounded[rounded >= rounded[may_be - 1]]
    return logits, (kept / temperature).softmax(0)


def _drawn_places(facts: Facts, decoding: Decoding, likely: Tensor) -> Tensor:
    """Place of each drawn token among the likely ones, from the likeliest, or how many these are if it is none of them.

    Every sequence has an order of its own each time.
    """
    vocab_size, device = facts.cell.config.model.vocab_size, facts.context.device
    batch = facts.cell.sizes.micro_batch_size
    never = NEVER * (facts.cell.config.generate.temperature or 1.0)
    generator, found = torch.Generator().manual_seed(0), []
    torch.manual_seed(0)
    for index in range(-(-NUM_DRAWS // batch)):
        order = torch.stack([torch.randperm(vocab_size, generator=generator)[: len(likely)] for _ in range(batch)])
        logits = torch.full((batch, vocab_size), never, dtype=likely.dtype, device=device)
        logits.scatter_(1, order.to(device), likely.to(device).expand(batch, -1))
        if index % facts.cell.config.generate.new_tokens == 0:
            decoding.progress.restart()
        decoding._take(logits[:, None])
        is_it = order == decoding.progress.token.cpu()
        found.append(torch.where(is_it.any(1), is_it.int().argmax(1), len(likely)))
    return torch.cat(found)


def _moments(shares: Tensor) -> tuple[float, float]:
    """Mean and standard deviation of a place that is drawn by these shares."""
    places = torch.arange(len(shares), dtype=torch.float64)
    mean = float(shares @ places)
    return mean, math.sqrt(float(shares @ (places - mean) ** 2))
