"""Efficiencies and additive terms of the prediction, fitted to measured cells: what `bench calibrate DIR` writes."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from benchrunner.core.cell import Cell
from benchrunner.core.errors import UsageError
from benchrunner.core.record import Record
from benchrunner.machine.hardware import Hardware
from benchrunner.plan.micro_batches import typical_lengths
from benchrunner.plan.step_time import RESOURCES, ideal_seconds

NUM_ROUNDS = 2000
LEAST_SPREAD = 0.05
COVERED = 0.9
"""The interval is as wide as holds this share of the cells that it was fitted to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A measured cell."""

    cell: Cell
    record: Record


def calibrate(samples: Sequence[Sample], hardware: Hardware) -> dict[str, float]:
    """Name → value, as `hardware.calibration` has them; what the samples say nothing of is left out.

    Times are sums of ideal seconds ÷ efficiency: a least-squares fit of the inverses to relative errors, none negative.
    Measured times hold the clock that the power limit left, so the fitted efficiencies do too, and `clock` is 1.

    Raises:
        UsageError: no sample has a step time that can be predicted.
    """
    rows, times_s = _rows(samples, hardware)
    if not rows:
        raise UsageError("calibrate: no measured cell has a step time on a device with known peaks")
    inverses = fit([[ideal[name] / time_s for name in RESOURCES] for ideal, time_s in zip(rows, times_s, strict=True)])
    found = {name: 1 / inverse for name, inverse in zip(RESOURCES, inverses, strict=True) if inverse > 0}
    errors = sorted(
        abs(sum(ideal[name] * inverse for name, inverse in zip(RESOURCES, inverses, strict=True)) / time_s - 1)
        for ideal, time_s in zip(rows, times_s, strict=True)
    )
    spread = max(LEAST_SPREAD, errors[min(len(errors) - 1, int(COVERED * len(errors)))])
    return {"clock": 1.0, **found, "spread": spread, **_outside(samples)}


def _rows(samples: Sequence[Sample], hardware: Hardware) -> tuple[list[dict[str, float]], list[float]]:
    rows, times_s = [], []
    for sample in samples:
        time_s = sample.record.metrics.get("step_time_median_s")
        ideal = ideal_seconds(sample.cell.config, sample.cell.sizes, hardware, typical_lengths(sample.cell))
        if sample.record.status == "ok" and not sample.record.fault and time_s and ideal:
            rows.append(ideal)
            times_s.append(float(time_s))
    return rows, times_s


def fit(rows: Sequence[Sequence[float]]) -> list[float]:
    """x ≥ 0 that brings every row · x nearest to 1, by coordinate descent; 0 for a column that is empty."""
    columns = list(zip(*rows, strict=True))
    x = [1.0 if any(column) else 0.0 for column in columns]
    left = [1.0 - sum(value * one for value, one in zip(row, x, strict=True)) for row in rows]
    squares = [sum(value * value for value in column) for column in columns]
    for _ in range(NUM_ROUNDS):
        for place, column in enumerate(columns):
            if not squares[place]:
                continue
            step = sum(value * rest for value, rest in zip(column, left, strict=True)) / squares[place]
            step = max(step, -x[place])
            x[place] += step
            left = [rest - step * value for rest, value in zip(left, column, strict=True)]
    return x


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
