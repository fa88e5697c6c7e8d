"""From the ranks' results to the headline numbers of a record. Definitions: docs/metrics.md."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchrunner.core.cell import Cell

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


def headline(cell: Cell, ranks: Sequence[Mapping[str, Any]], hardware: Mapping[str, Any]) -> dict[str, Any]:
    """The headline metrics of a cell whose ranks all finished; null where unknown."""
    metrics = _step_times(ranks) | _memory(ranks) | _compile(ranks) | _driver(ranks)
    metrics |= _throughput(cell, ranks[0], hardware, _typical_step_s(cell, _slowest(ranks)))
    metrics |= _losses(ranks[0])
    metrics["attention"] = ranks[0].get("choices", {}).get("attention")
    return metrics | dict(_slowest_rank(ranks).get("metrics", {}))


def flags_of(cell: Cell, ranks: Sequence[Mapping[str, Any]]) -> list[str]:
    """What a reader should know before trusting the number."""
    flags = {flag for rank in ranks for flag in rank.get("flags", ())}
    if any((rank.get("memory") or {}).get("num_alloc_retries") for rank in ranks):
        flags.add("alloc_retries")
    if any((rank.get("compile") or {}).get("num_graph_breaks") for rank in ranks):
        flags.add("graph_breaks")
    if any((rank.get("compile") or {}).get("num_window_recompiles") for rank in ranks):
        flags.add("recompiled")
    if any(THROTTLE_REASONS & set(rank.get("clock_event_reasons", ())) for rank in ranks):
        flags.add("throttled")
    if any(rank.get("foreign_processes") for rank in ranks):
        flags.add("foreign_process")
    if cell.config.workload.lengths == "fixed" and _is_unstable(_slowest(ranks)):
        flags.add("unstable")
    if any(rank.get("checks", {}).get("parity", {"ok": True})["ok"] is None for rank in ranks):
        flags.add("unjudged")
    return sorted(flags)


def _slowest_rank(ranks: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The rank with the largest total: the maximum over ranks of each single step is biased upward."""
    return max(ranks, key=lambda rank: sum(rank.get("step_times_s") or []))


def _slowest(ranks: Sequence[Mapping[str, Any]]) -> list[float]:
    return list(_slowest_rank(ranks).get("step_times_s") or [])


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


def _step_times(ranks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    samples = _slowest(ranks)
    names = ("step_time_median_s", "step_time_p10_s", "step_time_p90_s", "step_time_min_s", "step_time_rank_skew")
    if not samples:
        return dict.fromkeys(names)
    totals = [sum(rank["step_times_s"]) for rank in ranks]
    values = (statistics.median(samples), percentile(samples, 0.1), percentile(samples, 0.9), min(samples))
    return dict(zip(names, (*values, max(totals) / min(totals) - 1.0), strict=True))


def _throughput(
    cell: Cell, rank: Mapping[str, Any], hardware: Mapping[str, Any], step_time_s: float | None
) -> dict[str, Any]:
    world_size, flops = cell.sizes.world_size, rank.get("flops") or {}
    names = (
        "tokens_per_second_per_device",
        "samples_per_second",
        "model_flops_per_second_per_device",
        "hardware_flops_per_second_per_device",
        "mfu",
    )
    if step_time_s is None or not rank.get("tokens_per_step"):
        return dict.fromkeys(names)
    a_device_second = step_time_s * world_size
    model_flops, hardware_flops = flops.get("model_per_step"), flops.get("hardware_per_step")
    values = (
        rank["tokens_per_step"] / a_device_second,
        rank.get("samples_per_step", cell.sizes.global_batch_size) / step_time_s,
        None if model_flops is None else model_flops / a_device_second,
        None if hardware_flops is None else hardware_flops / a_device_second,
        _mfu(flops.get("by_dtype") or {}, hardware.get("peak_flops") or {}, a_device_second),
    )
    return dict(zip(names, values, strict=True))


def _mfu(by_dtype: Mapping[str, float], peaks: Mapping[str, float], a_device_second: float) -> float | None:
    """Σ FLOPs of a dtype ÷ that dtype's peak ÷ time; null, never a guess, when a peak is unknown."""
    if not by_dtype or any(not peaks.get(dtype) for dtype in by_dtype):
        return None
    return sum(flops / peaks[dtype] for dtype, flops in by_dtype.items()) / a_device_second


def _memory(ranks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The worst rank's peaks in bytes."""
    blocks = [rank["memory"] for rank in ranks if rank.get("memory")]
    if not blocks:
        names = ("peak_memory_allocated_bytes", "peak_memory_reserved_bytes", "run_peak_memory_allocated_bytes")
        return dict.fromkeys((*names, "num_alloc_retries", "memory_scope"))
    retries = [block["num_alloc_retries"] for block in blocks if block.get("num_alloc_retries") is not None]
    return {
        "peak_memory_allocated_bytes": max(block["window"]["allocated_bytes"] for block in blocks),
        "peak_memory_reserved_bytes": max(block["window"]["reserved_bytes"] for block in blocks),
        "run_peak_memory_allocated_bytes": max(block["run"]["allocated_bytes"] for block in blocks),
        "num_alloc_retries": max(retries) if retries else None,
        "memory_scope": blocks[0].get("scope"),
    }


def _compile(ranks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    blocks = [rank.get("compile") or {} for rank in ranks]
    names = {
        "compile_time_s": "compile_s",
        "first_step_s": "first_step_s",
        "num_graphs": "num_graphs",
        "num_graph_breaks": "num_graph_breaks",
        "num_recompiles": "num_window_recompiles",
    }
    return {name: _largest(block.get(key) for block in blocks) for name, key in names.items()}


def _driver(ranks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Energy summed over ranks, null unless every rank has it; utilisation and clock averaged over ranks."""
    energies = [rank.get("energy_j") for rank in ranks]
    num_steps = len(ranks[0].get("step_times_s") or [])
    known = [energy for energy in energies if energy is not None]
    whole = len(known) == len(ranks) and num_steps > 0
    return {
        "energy_j_per_step": sum(known) / num_steps if whole else None,
        "gpu_utilization_mean": _mean_of(ranks, "utilization", "mean"),
        "gpu_utilization_sd": _mean_of(ranks, "utilization", "sd"),
        "sm_clock_mhz_mean": _mean_of(ranks, "sm_clock_mhz", "mean"),
    }


def _losses(rank: Mapping[str, Any]) -> dict[str, Any]:
    losses = rank.get("losses") or []
    return {"first_loss": losses[0] if losses else None, "final_loss": losses[-1] if losses else None}


def _mean_of(ranks: Sequence[Mapping[str, Any]], block: str, key: str) -> float | None:
    values = [rank[block][key] for rank in ranks if rank.get(block)]
    return statistics.fmean(values) if values else None


def _largest(values: Any) -> Any:
    known = [value for value in values if value is not None]
    return max(known) if known else None
