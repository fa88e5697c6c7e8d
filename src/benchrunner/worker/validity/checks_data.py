"""Every step of the window, not only the one that is profiled: its data are new, it has a loss, it is as the others."""

import hashlib
import itertools
import math
import statistics
from collections import Counter
from collections.abc import Sequence

from torch import Tensor

from benchrunner.core.lengths import is_padded
from benchrunner.worker.validity.finding import Facts, Finding, unknown

CHANCE = 1e-6
"""Batches of so few possible tokens that two may be alike by chance more often than this are not judged."""

MIN_STEPS = 12
"""A window of fewer says nothing of kinds."""
KINDS_RATIO = 1.5
"""A slow kind's median is at least so many times a fast kind's."""
KINDS_GAP = 0.5
"""Nothing lies in so much of the way between the medians."""
MAX_PERIOD = 4
"""Steps after which the kinds repeat. What disturbs a machine has no period; leaving work out by a rule does."""
FAR_RATIO = 3.0
"""On a device of our own, kinds so far apart are two whatever their order."""
MIN_SHARE = 0.2
"""Of the steps in the smaller kind."""


def data(facts: Facts) -> Finding:
    """No batch comes twice, on any rank or in any step, and every step has a loss of its own."""
    if not facts.consumed:
        return unknown("this workload draws no batches")
    if _chance(facts) > CHANCE:
        return unknown("the vocabulary is so small that batches may be alike by chance")
    prints = facts.exchange.gather(fingerprints(facts.consumed))
    counts = Counter(print_ for mine in prints for print_ in mine)
    num_batches = facts.num_steps * facts.cell.sizes.accumulation_steps * facts.context.world_size
    losses = len(facts.own_losses) if facts.optimizer is not None else None
    right_losses = losses is None or losses == facts.num_steps
    told = "" if losses is None else f", {facts.num_steps} losses"
    return Finding(
        ok=len(counts) == sum(counts.values()) == num_batches and right_losses,
        expected=f"{num_batches} different micro-batches in {facts.num_steps} steps{told}",
        observed=f"{len(counts)} different ones of {sum(counts.values())}"
        + ("" if losses is None else f", {losses} losses"),
    )


def fingerprints(batches: Sequence[Tensor]) -> list[str]:
    """One for each batch [B, T], of its tokens in their order."""
    return [hashlib.sha256(batch.contiguous().cpu().numpy().tobytes()).hexdigest() for batch in batches]


def _chance(facts: Facts) -> float:
    """That two of all batches are alike although both were drawn."""
    cell = facts.cell
    num_batches = len(facts.consumed) * facts.context.world_size
    shortest = cell.config.workload.min_length if is_padded(cell) else facts.consumed[0].shape[1]
    exponent = cell.sizes.micro_batch_size * shortest * math.log(cell.config.model.vocab_size)
    return num_batches**2 * math.exp(-exponent)


def steps(facts: Facts) -> Finding:
    """The window's steps are of one kind: steps that leave work out are fast and come back by a rule."""
    times = facts.result["step_times_s"]
    if is_padded(facts.cell):
        return unknown("samples differ in length, and so do steps")
    if len(times) < MIN_STEPS:
        return unknown(f"{len(times)} steps are too few to judge, {MIN_STEPS} are needed")
    kinds = two_kinds(times)
    if kinds is None:
        return Finding(ok=True, expected="steps of one kind", observed="one kind")
    fast, slow = (statistics.median(kind) for kind in kinds)
    period = period_of([time in kinds[0] for time in times])
    far = slow >= FAR_RATIO * fast and facts.context.device.type == "cuda"
    after = "" if period is None else f", again after {period} steps"
    return Finding(
        ok=period is None and not far,
        expected="steps of one kind",
        observed=f"{len(kinds[0])} of {fast * 1e3:.3g} ms and {len(kinds[1])} of {slow * 1e3:.3g} ms{after}",
        note="two kinds without a rule: something else was at work" if period is None and not far else None,
    )


def two_kinds(times: Sequence[float]) -> tuple[list[float], list[float]] | None:
    """The fast and the slow steps, where a wide gap parts them; else None."""
    ordered = sorted(times)
    gaps = [after - before for before, after in itertools.pairwise(ordered)]
    place = gaps.index(max(gaps)) + 1
    fast, slow = ordered[:place], ordered[place:]
    low, high = statistics.median(fast), statistics.median(slow)
    small = min(len(fast), len(slow)) < MIN_SHARE * len(times)
    close = high < KINDS_RATIO * low or max(gaps) < KINDS_GAP * (high - low)
    return None if small or close else (fast, slow)


def period_of(pattern: Sequence[bool]) -> int | None:
    """After how many steps a pattern repeats, if it does at once."""
    for period in range(2, MAX_PERIOD + 1):
        if all(one == after for one, after in zip(pattern, pattern[period:], strict=False)):
            return period
    return None
