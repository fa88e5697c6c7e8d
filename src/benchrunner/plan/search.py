"""`micro_batch_size=max|best`: which sizes are tried one after the other, each as a cell of its own, and what follows.

Where a search stands is a function of the verdicts on its sizes alone, so that it goes on after anything, anywhere.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, fields, replace

from benchrunner.core.cell import Cell, config_digest, derive_sizes, identity, unique_slug
from benchrunner.core.record import Record, SearchGrounds, Tried
from benchrunner.core.schema import Config
from benchrunner.plan.plan import PlannedCell
from benchrunner.plan.predict import Prediction
from benchrunner.plan.verdict import PREDICTED_ONLY, Preflight, Verdict

KEY = "micro_batch_size"

LARGEST = 2**20
"""Samples; where nothing else ends the growth."""

NEAR = 64
"""So far from the size that would be next others are looked at, where rules forbid it."""

STEP_SHARE = 0.25
"""Of a prediction's margin: the first step away from the size that is predicted to be the largest."""

FINEST_SHARE = 0.25
"""Of the fastest size: as near its neighbours are tried. Nearer ones differ by less than two runs of the same do."""

CACHED_SHARE = {"cuda": 1.08}
"""What the allocator takes of the device ÷ what tensors take, where memory runs out: of blocks of Llama 44 samples ran
on an H200 and 45 did not, though tensors alone would let 48 (docs/results/2026-11-30-h200-search.md)."""

LADDER_SHARE = 0.75
"""Of the largest size: from there down the fastest is looked for, by halves."""


def probe_of(search: Cell, size: int, taken: Collection[str]) -> Cell:
    """The cell that a search tries with this micro-batch: the same as one that overrides name. `taken`: slugs."""
    changed = {key: size if key == KEY else value for key, value in search.overrides.items()}
    overrides = {key: value for key, value in changed.items() if (key, value) != (KEY, DEFAULT)}
    cell_id, config = identity(search.axes, overrides), replace(search.config, micro_batch_size=size)
    return Cell(
        cell_id=cell_id,
        config_digest=config_digest(config),
        slug=unique_slug(search.axes, overrides, cell_id, taken),
        axes=search.axes,
        overrides=overrides,
        config=config,
        sizes=derive_sizes(config, search.sizes.devices),
    )


DEFAULT = next(item.default for item in fields(Config) if item.name == KEY)


def first_probe(planned: PlannedCell) -> Cell:
    """The cell that a planned cell's prediction is of: of a search its first probe, else the cell itself."""
    predicted: Prediction = planned.predicted or {}
    return probe_of(planned.cell, predicted.get("micro_batch_size", 1), ()) if planned.cell.search else planned.cell


class Candidates:
    """The sizes that a search may try: those that no rule forbids and that divide the global batch, if it is given."""

    def __init__(self, search: Cell, preflight: Preflight, taken: Collection[str] = ()) -> None:
        self.search, self._preflight, self._taken = search, preflight, taken
        batch = search.config.global_batch_size
        self._share = None if batch is None else batch // search.sizes.world_size

    def plan(self, size: int) -> PlannedCell | None:
        """The cell with this size as it is run; None: it would not be."""
        cell = probe_of(self.search, size, self._taken)
        verdict = self._preflight.decide(cell, None)
        # What is predicted to be too large is for the search to decide, and a prediction may be all that is asked for.
        if verdict.verdict != "run" and verdict.reason_code not in ("skipped.predicted_oom", PREDICTED_ONLY):
            return None
        flags, predicted = verdict.flags, verdict.predicted
        return PlannedCell(cell=cell, flags=flags, predicted=predicted, probe_of=self.search.slug)

    def nearest(self, low: int, target: int, high: int | None) -> int | None:
        """The size nearest to `target`, above `low` and below `high` (None: any); None where there is none."""
        most = LARGEST if high is None else high - 1
        if self._share is None:
            sizes: Iterable[int] = range(max(low + 1, target - NEAR), min(most, target + NEAR) + 1)
        else:
            sizes = (size for size in range(low + 1, min(most, self._share) + 1) if self._share % size == 0)
        ordered = sorted(sizes, key=lambda size: (abs(size - target), size))
        return next((size for size in ordered if self.plan(size) is not None), None)

    def predicted(self) -> int:
        """The largest size that is predicted to fit; 1 where nothing can be said."""
        low, high = 1, 2
        while high <= LARGEST and self._fits(high):
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._fits(middle) else (low, middle)
        return low

    def _fits(self, size: int) -> bool:
        predicted = self._preflight.predicted(probe_of(self.search, size, ()))
        capacity = predicted.get("capacity_bytes")
        share = CACHED_SHARE.get(self._preflight.hardware.device_type, 1.0)
        return capacity is not None and share * predicted["peak_memory_bytes"] <= capacity


def decide_search(cell: Cell, excluded_reason: str | None, preflight: Preflight) -> Verdict:
    """The verdict on a search: its own, where it is struck out or a rule speaks of searches, else of its first probe.

    Its prediction is that of the first probe, with the size.
    """
    own = preflight.decide_search(cell, excluded_reason)
    if own is not None:
        return own
    candidates = Candidates(cell, preflight)
    start = candidates.nearest(0, candidates.predicted(), None) or 1
    verdict = preflight.decide(probe_of(cell, start, ()), None)
    if verdict.predicted is not None:
        verdict = replace(verdict, predicted={**verdict.predicted, "micro_batch_size": start})
    if verdict.reason_code == "skipped.predicted_oom" and start > 1:
        verdict = replace(verdict, verdict="run", reason_code=None, reason=None)
    return replace(verdict, flags=[flag for flag in verdict.flags if flag.startswith("probe:")])


# --- what is tried next -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """Where a search begins, how far its first step goes, and which sizes it may try (`Candidates.nearest`)."""

    kind: str
    """max | best"""
    start: int
    step: int
    nearest: Callable[[int, int, int | None], int | None]

    def next(self, tried: Mapping[int, Tried]) -> int | None:
        """The size to try after these, of which each ran (`ok`) or ran out of memory; None: the search is over."""
        low, high = self._bounds(tried)
        size = self.nearest(low, self._target(low, high), high)
        is_over = size is not None or self.kind == "max" or not low
        return size if is_over else self._faster(tried, low) or self._beside(tried)

    def found(self, tried: Mapping[int, Tried]) -> int | None:
        """What the search has found, once there is nothing to try any more; None: not even one sample fits."""
        fitting = [size for size, one in tried.items() if self._fits(one)]
        return max(fitting, key=lambda size: (_rate(tried[size]) if self.kind == "best" else size, -size), default=None)

    def _fits(self, one: Tried) -> bool:
        """The best is never one whose allocator had to give back and try again."""
        return one["status"] == "ok" and not (self.kind == "best" and one["num_alloc_retries"])

    def _bounds(self, tried: Mapping[int, Tried]) -> tuple[int, int | None]:
        """The largest size that fits (0: none), and the smallest above it that does not (None: none)."""
        low = max((size for size, one in tried.items() if self._fits(one)), default=0)
        return low, min((size for size in tried if size > low), default=None)

    def _target(self, low: int, high: int | None) -> int:
        """From the start in steps that double, up or down, until the edge is passed; then the middle, again and again.

        Where the start is 1, that is 1, 2, 4, 8, …
        """
        if low < self.start and (high is None or self.start < high):
            return self.start
        if high is None:
            return 2 * low - self.start + self.step
        return (low + high) // 2 if low else max(1, 2 * high - self.start - self.step)

    def _faster(self, tried: Mapping[int, Tried], largest: int) -> int | None:
        """Once the largest is known: the next one by halves down from it, while they become faster."""
        fastest = _rate(tried[largest])
        power = 2 ** int(LADDER_SHARE * largest).bit_length() // 2
        while power:
            size = self.nearest(power // 2, power, min(2 * power, largest))
            if size is not None and size not in tried:
                return size
            rate = fastest if size is None else _rate(tried[size]) if self._fits(tried[size]) else 0.0
            if rate < fastest:
                break
            fastest, power = rate, power // 2
        return None

    def _beside(self, tried: Mapping[int, Tried]) -> int | None:
        """The middle between the fastest and one of its neighbours, as long as that is far."""
        best = self.found(tried) or 0
        above = min((size for size in tried if size > best), default=best)
        below = max((size for size in tried if size < best), default=best)
        for low, high in ((best, above), (below, best)):
            is_far = high - low > max(1, FINEST_SHARE * best)
            if is_far and (size := self.nearest(low, (low + high) // 2, high)) is not None:
                return size
        return None


def _rate(one: Tried) -> float:
    return one["tokens_per_second_per_device"] or 0.0


def search_of(planned: PlannedCell, candidates: Candidates) -> Search:
    """The search that a planned cell stands for: it begins where its plan predicts the edge."""
    predicted: Prediction = planned.predicted or {}
    start = predicted.get("micro_batch_size", 1)
    step = max(1, round(start * predicted.get("margin", 0.0) * STEP_SHARE))
    return Search(kind=str(planned.cell.search), start=start, step=step, nearest=candidates.nearest)


# --- what it says -------------------------------------------------------------------------------------------------


def tried_by(record: Record) -> Tried:
    """What a search learns from a probe's record."""
    metrics = record.metrics
    rate = metrics.get("decode_tokens_per_second") or metrics.get("tokens_per_second_per_device")
    return Tried(
        micro_batch_size=record.sizes[KEY],
        cell=record.slug,
        status=record.status,
        num_alloc_retries=metrics.get("num_alloc_retries") or 0,
        tokens_per_second_per_device=rate,
    )


def search_text(found: SearchGrounds, so_far: int | None = None) -> str:
    """`max = 12 (probes: 8 ok, 16 oom, 12 ok)`; of one that came to no end `max: 8 so far (…)`."""
    size, open_end = found["micro_batch_size"], "none" if so_far is None else f"{so_far} so far"
    result = f"{found['kind']} = {size}" if size is not None else f"{found['kind']}: {open_end}"
    probes = ", ".join(map(_probe_text, found["probes"]))
    return f"{result} (probes: {probes or 'none'})"


def _probe_text(one: Tried) -> str:
    retries = one["num_alloc_retries"]
    after = f" after {retries} allocator {'retry' if retries == 1 else 'retries'}" if retries else ""
    return f"{one['micro_batch_size']} {one['status']}{after}"
