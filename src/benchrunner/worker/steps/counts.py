"""Tokens and FLOPs of a step, for samples of one length and for samples that differ."""

from collections import Counter
from dataclasses import replace

from benchrunner.core import arithmetic
from benchrunner.core.cell import Cell, Sizes
from benchrunner.core.lengths import count_lengths, is_padded
from benchrunner.core.rank_result import Flops, RankResult


def flops_block(cell: Cell, sizes: Sizes | None = None) -> Flops:
    """FLOPs of one optimizer step over all devices; attention counted as computed, i.e. causal."""
    sizes = sizes or cell.sizes
    return {
        "convention": "causal",
        "model_per_step": arithmetic.train_flops_per_step(cell.config, sizes),
        "hardware_per_step": arithmetic.hardware_flops_per_step(cell.config, sizes),
        "by_dtype": arithmetic.flops_by_dtype(cell.config, sizes),
    }


def counts_of_lengths(cell: Cell, steps: range) -> RankResult:
    """Tokens and FLOPs a step, the mean over `steps`, of samples that differ in length; nothing where all are alike.

    Model FLOPs are those of the samples as drawn; hardware FLOPs those of what was computed, padding included.
    """
    if not is_padded(cell):
        return {}
    real, padded = count_lengths(cell, steps)
    model, hardware = (_mean_flops(cell, lengths, len(steps)) for lengths in (real, padded))
    return {
        "tokens_per_step": sum(real.elements()) / len(steps),
        "padded_tokens_per_step": sum(padded.elements()) / len(steps),
        "flops": {**model, "hardware_per_step": hardware["hardware_per_step"]},
    }


def _mean_flops(cell: Cell, lengths: Counter[int], num_steps: int) -> Flops:
    """`flops_block` of samples of these lengths (length → how many), a step."""
    model = hardware = 0.0
    by_dtype: dict[str, float] = {}
    for length, count in lengths.items():
        block = flops_block(cell, replace(cell.sizes, seq_len=length, global_batch_size=1))
        model += count / num_steps * block["model_per_step"]
        hardware += count / num_steps * block["hardware_per_step"]
        for dtype, flops in block["by_dtype"].items():
            by_dtype[dtype] = by_dtype.get(dtype, 0.0) + count / num_steps * flops
    return {"convention": "causal", "model_per_step": model, "hardware_per_step": hardware, "by_dtype": by_dtype}
