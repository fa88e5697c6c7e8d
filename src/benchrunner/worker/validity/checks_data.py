"""Every step of the window, not only the one that is profiled: its data are the seed's, and it is as the others."""

import hashlib
import itertools
import math
import statistics
from collections.abc import Sequence

from torch import Tensor

from benchrunner.worker.validity import expected_data, expected_work
from benchrunner.worker.validity.finding import Facts, Finding, unknown

CLOCK_RATIO, CLOCK_SLACK_S = 1.05, 0.25
"""How far the sum of the steps may be from the window by the host's clock, which begins before and ends after them."""

MIN_STEPS = 12
"""A window of fewer says nothing of kinds."""
KINDS_RATIO = 1.5
"""A slow kind's median is at least so many times a fast kind's."""
KINDS_GAP = 0.5
"""Nothing lies in so much of the way between the medians."""
MAX_PERIOD = 4
"""Steps after which the kinds repeat. What disturbs a machine has no period; leaving work out by a rule does."""
FAR_RATIO = 3.0
"""On a device of our own, kinds so far apart are two whatever their order; elsewhere if they take turns."""
LEAST_ORDERS = 10_000
"""In which so many steps of so many could be the fast ones: eight of 16, five of 20."""
MIN_SHARE = 0.2
"""Of the steps in the smaller kind."""


def data(facts: Facts) -> Finding:
    """Every batch of every step and rank is the one that the cell's seed means; every step has a loss of its own."""
    if not facts.consumed:
        return unknown("this workload draws no batches")
    mine, meant = fingerprints(facts.consumed, facts.targets), _meant(facts)
    strange = [place for place, pair in enumerate(zip(mine, meant, strict=False)) if pair[0] != pair[1]]
    of_ranks = facts.exchange.gather((len(mine), strange))
    num_batches = facts.num_steps * facts.cell.sizes.accumulation_steps * facts.context.world_size
    seen, wrong = sum(count for count, _ in of_ranks), sum(len(places) for _, places in of_ranks)
    losses = len(facts.own_losses) if facts.optimizer is not None else None
    wish, found = f"{num_batches} micro-batches in {facts.num_steps} steps, as drawn by the seed", f"{seen}"
    if wrong:
        found += f", of which {wrong} are others, {_first(facts, [places for _, places in of_ranks])}"
    if losses is not None:
        wish, found = f"{wish}; {facts.num_steps} losses", f"{found}; {losses} losses"
    is_right = not wrong and seen == num_batches and losses in (None, facts.num_steps)
    return Finding(ok=is_right, expected=wish, observed=found)


def _meant(facts: Facts) -> list[str]:
    """Fingerprints of the batches that this rank should have had."""
    cell, rank, steps = facts.cell, facts.context.rank, range(facts.num_steps)
    if cell.axes["workload"] == "generate":
        return fingerprints(list(expected_data.prompts(cell, rank, steps)))
    tokens, targets = zip(*expected_data.micro_batches(cell, rank, steps), strict=True)
    return fingerprints(tokens, targets if facts.targets else ())


def _first(facts: Facts, places: Sequence[Sequence[int]]) -> str:
    """The first step in which a rank had another batch, and which rank."""
    place, rank = min((of_rank[0], rank) for rank, of_rank in enumerate(places) if of_rank)
    return f"the first in step {place // facts.cell.sizes.accumulation_steps} on rank {rank}"


def fingerprints(batches: Sequence[Tensor], targets: Sequence[Tensor] = ()) -> list[str]:
    """One for each batch [B, T], of its tokens in their order and what they are trained on."""
    pairs = itertools.zip_longest(batches, targets)
    return [_digest(*(part for part in pair if part is not None)) for pair in pairs]


def _digest(*parts: Tensor) -> str:
    found = hashlib.sha256()
    for part in parts:
        found.update(part.contiguous().cpu().numpy().tobytes())
    return found.hexdigest()


def steps(facts: Facts) -> Finding:
    """The window has as many steps as it claims, and they are of one kind: steps that leave work out are fast and come
    back by a rule.
    """
    times, (warmup, length) = facts.result["step_times_s"], expected_work.window_length(facts.cell)
    wish, found = f"{length} measured steps after {warmup}", f"{len(times)} of {facts.num_steps}"
    # A window in which a compiler worked is measured once more.
    if len(times) != length or facts.num_steps not in (warmup + length, warmup + 2 * length):
        return Finding(ok=False, expected=wish, observed=found)
    if not fills(sum(times), window_s := facts.result["window_s"]):
        strange = f"{sum(times):.3g} s of steps in {window_s:.3g} s"
        return Finding(ok=False, expected="step times that fill the window", observed=strange)
    if why := _why_kinds_are_unseen(facts, times):
        return Finding(ok=True, expected=wish, observed=found, note=why)
    kinds = two_kinds(times) or kinds_by_rule(times)
    if kinds is None:
        return Finding(ok=True, expected=f"{wish}, of one kind", observed=f"{found}, one kind")
    fast, slow = (statistics.median(kind) for kind in kinds)
    period = period_of([time in kinds[0] for time in times])
    far = slow >= FAR_RATIO * fast and facts.context.device.type == "cuda"
    after = "" if period is None else f", again after {period} steps"
    return Finding(
        ok=period is None and not far,
        expected=f"{wish}, of one kind",
        observed=f"{found}, {len(kinds[0])} of {fast * 1e3:.3g} ms and {len(kinds[1])} of {slow * 1e3:.3g} ms{after}",
        note="two kinds without a rule: something else was at work" if period is None and not far else None,
    )


def fills(steps_s: float, window_s: float) -> bool:
    """Whether steps are about as long as the window that they are measured in."""
    return max(steps_s, window_s) <= CLOCK_RATIO * min(steps_s, window_s) + CLOCK_SLACK_S


def _why_kinds_are_unseen(facts: Facts, times: Sequence[float]) -> str | None:
    if facts.cell.config.workload.lengths != "fixed":
        return "samples differ in length, and so do steps"
    return f"{len(times)} steps are too few to tell kinds, {MIN_STEPS} are needed" if len(times) < MIN_STEPS else None


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


def kinds_by_rule(times: Sequence[float]) -> tuple[list[float], list[float]] | None:
    """The fast and the slow steps where those that come back after some steps are far from all others, if no gap parts
    them: on a busy machine times of both kinds lie anywhere. By chance that is one order of many.
    """
    for period in range(2, MAX_PERIOD + 1):
        for first in range(period):
            these = list(times[first::period])
            if math.comb(len(times), len(these)) < LEAST_ORDERS:
                continue
            others = [time for place, time in enumerate(times) if place % period != first]
            for fast, slow in ((these, others), (others, these)):
                if max(fast) < min(slow) and statistics.median(slow) >= FAR_RATIO * statistics.median(fast):
                    return fast, slow
    return None


def period_of(pattern: Sequence[bool]) -> int | None:
    """After how many steps a pattern repeats, if it does at once."""
    for period in range(2, MAX_PERIOD + 1):
        if all(one == after for one, after in zip(pattern, pattern[period:], strict=False)):
            return period
    return None
