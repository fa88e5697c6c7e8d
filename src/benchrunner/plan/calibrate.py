"""Efficiencies and additive terms of the prediction, fitted to measured cells: what `bench calibrate DIR` writes."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchrunner.core.cell import Cell
from benchrunner.core.errors import UsageError
from benchrunner.core.record import Record
from benchrunner.machine.hardware import Hardware
from benchrunner.plan.micro_batches import typical_lengths
from benchrunner.plan.step_time import COMPUTED, DEVICE, RESOURCES, efficiencies, ideal_seconds, takes_turns

NUM_ROUNDS = 300
MEASURED, BELIEVED = 0.03, 0.25
"""A measured time is trusted to this share of itself, an efficiency that is known already to this one: so a few cells
of one kind move what they say something of, and leave the rest."""
MOST_STEP = 0.2
"""Of an efficiency's logarithm, in a round."""
COVERED = 0.9
"""The interval is as wide as holds this share of the cells that it was fitted to."""
LEAST_SPREAD = {"spread": 0.1, "host_spread": 0.3}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A measured cell."""

    cell: Cell
    record: Record


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """What a sample's time is fitted by."""

    ideal_s: Mapping[str, float]
    time_s: float
    in_turns: bool
    """Host and device wait for each other."""

    def seconds(self, reached: Mapping[str, float]) -> dict[str, float]:
        """Resource → what it adds to the step: the host all or nothing, and nothing else where it is slower."""
        terms = {name: self.ideal_s[name] / reached[name] for name in RESOURCES if self.ideal_s[name]}
        host_s = terms.pop("host", 0.0)
        if self.in_turns:
            return terms | {"host": host_s}
        return {"host": host_s} if host_s > sum(terms.values()) else terms

    def error(self, reached: Mapping[str, float]) -> float:
        """Predicted ÷ measured − 1."""
        return sum(self.seconds(reached).values()) / self.time_s - 1


def calibrate(samples: Sequence[Sample], hardware: Hardware) -> dict[str, float]:
    """Name → value, as `hardware.calibration` has them; what the samples say nothing of is left out.

    Raises:
        UsageError: no sample has a step time that can be predicted.
    """
    found = [_timed(sample, hardware) for sample in samples]
    return {**fit_times([one for one in found if one], hardware), **_outside(samples)}


def _timed(sample: Sample, hardware: Hardware) -> Timed | None:
    time_s = sample.record.metrics.get("step_time_median_s")
    is_sound = sample.record.status == "ok" and not sample.record.fault
    return timed_by(sample.cell, time_s, hardware) if is_sound and time_s else None


def timed_by(cell: Cell, time_s: float, hardware: Hardware) -> Timed | None:
    """A cell and its measured time; None where its time is not predicted."""
    ideal = ideal_seconds(cell.config, cell.sizes, hardware, typical_lengths(cell))
    return Timed(ideal_s=ideal, time_s=time_s, in_turns=takes_turns(cell.config, cell.sizes)) if ideal else None


def fit_times(timed: Sequence[Timed], hardware: Hardware) -> dict[str, float]:
    """Efficiencies and the widths of intervals.

    Times are sums of ideal seconds ÷ efficiency, or the host's. Each efficiency begins at what the device's file says,
    else at the typical one, and is held to it as loosely as `BELIEVED` says.

    Raises:
        UsageError: there is none.
    """
    if not timed:
        raise UsageError("calibrate: no measured cell has a step time on a device with known peaks")
    before = efficiencies(hardware.calibration)
    reached = fit(timed, before)
    told = {name for one in timed for name in one.seconds(reached)}
    found = {name: reached[name] / (before["clock"] if name in COMPUTED else 1.0) for name in RESOURCES if name in told}
    return {"clock": before["clock"], **found, **_spreads(timed, reached)}


def fit(timed: Sequence[Timed], before: Mapping[str, float]) -> dict[str, float]:
    """Efficiencies by least squares of relative errors, and of their logarithms against those `before`."""
    reached = dict(before)
    for _ in range(NUM_ROUNDS):
        for name in RESOURCES:
            pull = math.log(reached[name] / before[name]) / BELIEVED**2
            slope, curve = pull, 1 / BELIEVED**2
            for one in timed:
                terms = one.seconds(reached)
                share = terms.get(name, 0.0) / one.time_s / MEASURED
                slope -= share * (sum(terms.values()) / one.time_s - 1) / MEASURED
                curve += share * share
            reached[name] *= math.exp(min(max(-slope / curve, -MOST_STEP), MOST_STEP))
    return reached


def _spreads(timed: Sequence[Timed], reached: Mapping[str, float]) -> dict[str, float]:
    """Half of the interval, of steps that the device limits and of those that wait for the host."""
    errors: dict[str, list[float]] = {"spread": [], "host_spread": []}
    for one in timed:
        is_device = any(name in one.seconds(reached) for name in DEVICE)
        errors["spread" if is_device else "host_spread"].append(abs(one.error(reached)))
    return {
        name: max(LEAST_SPREAD[name], sorted(found)[int(COVERED * len(found))])
        for name, found in errors.items()
        if found
    }


def _outside(samples: Sequence[Sample]) -> dict[str, float]:
    """Bytes beside the allocator, by the driver: of cells on one device, and what several have more."""
    alone: list[int] = []
    several: list[int] = []
    for sample in samples:
        for rank in sample.record.ranks:
            memory = rank.get("memory")
            used = memory.get("nvml_used_bytes") if memory else None
            if memory and used:
                outside = used - memory["run"]["reserved_bytes"]
                (alone if sample.cell.sizes.world_size == 1 else several).append(outside)
    found: dict[str, float] = {"context_bytes": statistics.median(alone)} if alone else {}
    if alone and several:
        found["nccl_bytes"] = max(statistics.median(several) - found["context_bytes"], 0.0)
    return found
