"""From the ranks' results to the headline numbers of a record. Definitions: docs/metrics.md."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from benchrunner.core.cell import Cell
from benchrunner.core.job_file import Machine
from benchrunner.core.rank_result import Check, CompileCounters, Flops, RankMetrics, RankResult
from benchrunner.core.record import Metrics

Known = TypeVar("Known")
Number = TypeVar("Number", int, float)

UNSTABLE_SPREAD = 0.05
"""(p90 − p10) ÷ median above this sets the flag `unstable`."""

THROTTLE_REASONS = frozenset({"hw_slowdown", "sw_thermal_slowdown", "hw_thermal_slowdown", "hw_power_brake_slowdown"})
"""Clock events that make a number suspect; the power cap is an H200's normal state at work and is none of them."""


def percentile(samples: Sequence[float], share: float) -> float:
    """Linear interpolation between closest ranks; `share` in 0..1. Raises ValueError for no samples."""
    if not samples:
        raise ValueError("no samples")
    ordered = sorted(samples)
    position = share * (len(ordered) - 1)
    low = math.floor(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


def headline(cell: Cell, ranks: Sequence[RankResult], hardware: Machine | None) -> Metrics:
    """The headline metrics of a cell whose ranks all finished; None where unknown."""
    metrics: Metrics = {**_step_times(ranks), **_memory(ranks), **_compile(ranks), **_driver(ranks)}
    metrics |= _throughput(cell, ranks[0], hardware, _typical_step_s(cell, _slowest(ranks)))
    metrics |= _losses(ranks[0])
    choices = ranks[0].get("choices")
    metrics["attention"] = choices.get("attention") if choices else None
    return {**metrics, **_slowest_rank(ranks).get("metrics", RankMetrics())}


def flags_of(cell: Cell, ranks: Sequence[RankResult]) -> list[str]:
    """What a reader should know before trusting the number."""
    compiles = [rank.get("compile", CompileCounters()) for rank in ranks]
    counts: dict[str, Iterable[int | None]] = {
        "alloc_retries": (rank["memory"].get("num_alloc_retries") for rank in ranks if "memory" in rank),
        "graph_breaks": (block.get("num_graph_breaks") for block in compiles),
        "recompiled": (block.get("num_window_recompiles") for block in compiles),
        "foreign_process": (rank.get("foreign_processes") for rank in ranks),
    }
    flags = {flag for rank in ranks for flag in rank.get("flags", ())}
    flags |= {flag for flag, found in counts.items() if any(found)}
    if any(THROTTLE_REASONS & set(rank.get("clock_event_reasons", ())) for rank in ranks):
        flags.add("throttled")
    if cell.config.workload.lengths == "fixed" and _is_unstable(_slowest(ranks)):
        flags.add("unstable")
    if any(check["ok"] is None for check in _parity_checks(ranks)):
        flags.add("unjudged")
    return sorted(flags)


def _parity_checks(ranks: Sequence[RankResult]) -> list[Check]:
    checks = [rank.get("checks", {}) for rank in ranks]
    return [found["parity"] for found in checks if "parity" in found]


def _slowest_rank(ranks: Sequence[RankResult]) -> RankResult:
    """The rank with the largest total: the maximum over ranks of each single step is biased upward."""
    return max(ranks, key=lambda rank: sum(rank.get("step_times_s", ())))


def _slowest(ranks: Sequence[RankResult]) -> list[float]:
    return _slowest_rank(ranks).get("step_times_s", [])


def _typical_step_s(cell: Cell, samples: Sequence[float]) -> float | None:
    """The time that rates are made with: the median; the mean where samples differ in length and so do steps."""
    if not samples:
        return None
    return statistics.median(samples) if cell.config.workload.lengths == "fixed" else statistics.fmean(samples)


def _is_unstable(samples: Sequence[float]) -> bool:
    """A wide spread, or a trend: the last third's median differs from the first's by more than half the limit."""
    if len(samples) < 6:
        return False
    median = statistics.median(samples)
    third = len(samples) // 3
    trend = statistics.median(samples[-third:]) - statistics.median(samples[:third])
    spread = percentile(samples, 0.9) - percentile(samples, 0.1)
    return spread > UNSTABLE_SPREAD * median or abs(trend) > UNSTABLE_SPREAD / 2 * median


def _step_times(ranks: Sequence[RankResult]) -> Metrics:
    samples = _slowest(ranks)
    totals = [sum(rank.get("step_times_s", ())) for rank in ranks]
    return {
        "step_time_median_s": statistics.median(samples) if samples else None,
        "step_time_p10_s": percentile(samples, 0.1) if samples else None,
        "step_time_p90_s": percentile(samples, 0.9) if samples else None,
        "step_time_min_s": min(samples, default=None),
        "step_time_rank_skew": max(totals) / min(totals) - 1.0 if samples else None,
    }


def _throughput(cell: Cell, rank: RankResult, hardware: Machine | None, step_time_s: float | None) -> Metrics:
    tokens, samples = rank.get("tokens_per_step"), rank.get("samples_per_step", cell.sizes.global_batch_size)
    if not tokens:
        step_time_s = None
    a_device_second = None if step_time_s is None else step_time_s * cell.sizes.world_size
    flops, peaks = rank.get("flops", Flops()), hardware.get("peak_flops", {}) if hardware else {}
    return {
        "tokens_per_second_per_device": _rate(tokens, a_device_second),
        "samples_per_second": _rate(samples, step_time_s),
        "model_flops_per_second_per_device": _rate(flops.get("model_per_step"), a_device_second),
        "hardware_flops_per_second_per_device": _rate(flops.get("hardware_per_step"), a_device_second),
        "mfu": _rate(_peak_s(flops.get("by_dtype", {}), peaks), a_device_second),
    }


def _rate(amount: float | None, seconds: float | None) -> float | None:
    return None if amount is None or seconds is None else amount / seconds


def _peak_s(by_dtype: Mapping[str, float], peaks: Mapping[str, float]) -> float | None:
    """Σ FLOPs of a dtype ÷ that dtype's peak; None, never a guess, when a peak is unknown."""
    if not by_dtype or any(not peaks.get(dtype) for dtype in by_dtype):
        return None
    return sum(flops / peaks[dtype] for dtype, flops in by_dtype.items())


def _memory(ranks: Sequence[RankResult]) -> Metrics:
    """The worst rank's peaks in bytes; what the allocator reserved alone where it did not see what was allocated."""
    blocks = [rank["memory"] for rank in ranks if "memory" in rank]
    seen = [block for block in blocks if block.get("scope") != "replay"]
    return {
        "peak_memory_allocated_bytes": _largest(block["window"]["allocated_bytes"] for block in seen),
        "peak_memory_reserved_bytes": _largest(block["window"]["reserved_bytes"] for block in blocks),
        "run_peak_memory_allocated_bytes": _largest(block["run"]["allocated_bytes"] for block in seen),
        "steps_peak_memory_allocated_bytes": _largest(
            block["steps"]["allocated_bytes"] for block in seen if "steps" in block
        ),
        "num_alloc_retries": _largest(block.get("num_alloc_retries") for block in blocks),
        "memory_scope": blocks[0].get("scope") if blocks else None,
    }


def _compile(ranks: Sequence[RankResult]) -> Metrics:
    blocks = [rank.get("compile", CompileCounters()) for rank in ranks]
    return {
        "compile_time_s": _largest(block.get("compile_s") for block in blocks),
        "first_step_s": _largest(block.get("first_step_s") for block in blocks),
        "num_graphs": _largest(block.get("num_graphs") for block in blocks),
        "num_graph_breaks": _largest(block.get("num_graph_breaks") for block in blocks),
        "num_recompiles": _largest(block.get("num_window_recompiles") for block in blocks),
    }


def _driver(ranks: Sequence[RankResult]) -> Metrics:
    """Energy summed over ranks, None unless every rank has it; utilisation and clock averaged over ranks."""
    num_steps = len(ranks[0].get("step_times_s", ()))
    known = _known(rank.get("energy_j") for rank in ranks)
    whole = len(known) == len(ranks) and num_steps > 0
    used = _known(rank.get("utilization") for rank in ranks)
    clocks = _known(rank.get("sm_clock_mhz") for rank in ranks)
    return {
        "energy_j_per_step": sum(known) / num_steps if whole else None,
        "gpu_utilization_mean": _mean(block["mean"] for block in used),
        "gpu_utilization_sd": _mean(block["sd"] for block in used),
        "sm_clock_mhz_mean": _mean(block["mean"] for block in clocks),
    }


def _losses(rank: RankResult) -> Metrics:
    losses = rank.get("losses", [])
    return {"first_loss": losses[0] if losses else None, "final_loss": losses[-1] if losses else None}


def _known(values: Iterable[Known | None]) -> list[Known]:
    return [value for value in values if value is not None]


def _mean(values: Iterable[float]) -> float | None:
    known = list(values)
    return statistics.fmean(known) if known else None


def _largest(values: Iterable[Number | None]) -> Number | None:
    return max(_known(values), default=None)
