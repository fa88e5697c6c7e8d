"""The quantities of published tables as their authors measured them, from the samples that records keep.

No two of them measure the same: each is named in a layout (`layouts/*.yaml`) and printed under its own heading.
"""

import statistics
from collections.abc import Callable

from benchrunner.core import arithmetic
from benchrunner.core.rank_result import RankResult
from benchrunner.core.units import MIB
from benchrunner.report.row import Row

GB = 1e9
MICRO_ITERATIONS = 1000

Quantity = Callable[[Row], float | None]


def _samples(row: Row) -> list[float]:
    """Seconds of every step of rank 0."""
    return list(_first_rank(row).get("step_times_s", []))


def _first_rank(row: Row) -> RankResult:
    return row.record.ranks[0] if row.record and row.record.ranks else {}


def _best_s(row: Row) -> float | None:
    """Lit-GPT, forward: the best of the samples."""
    return min(_samples(row), default=None)


def _total_s(row: Row) -> float | None:
    """Lit-GPT, training: all iterations of the window together."""
    return sum(_samples(row)) or None


def _best_tokens_per_second(row: Row) -> float | None:
    """Lit-GPT, generation: new tokens of the fastest sample ÷ its time, prefill included."""
    best_s = _best_s(row)
    return None if best_s is None else row.planned.cell.config.generate.new_tokens / best_s


def _cold_tokens_per_second(row: Row) -> float | None:
    """Lit-GPT, resource tables: new tokens ÷ the time of one cold sample, prefill included."""
    cold = [sample for sample in _first_rank(row).get("samples", []) if sample["cold"]]
    if not cold:
        return None
    return row.planned.cell.config.generate.new_tokens / (cold[0]["prefill_s"] + cold[0]["decode_s"])


def _warm_tokens_per_second(row: Row) -> float | None:
    """The median of the warm samples, which the original did not take."""
    samples = _samples(row)
    return row.planned.cell.config.generate.new_tokens / statistics.median(samples) if samples else None


def _minutes_of_1000(row: Row) -> float | None:
    """Lit-GPT, resource tables: 1,000 micro-iterations, from the mean of the measured ones."""
    samples = _samples(row)
    if not samples:
        return None
    return statistics.fmean(samples) / row.planned.cell.sizes.accumulation_steps * MICRO_ITERATIONS / 60


def _steps_peak_gb(row: Row) -> float | None:
    """Peak allocated by any step, the first included, in 1e9 bytes.

    The originals read the peak since the process began, and make no weight in fp32 that they keep in 16 bits or less.
    Records of before it was kept apart have the window's, which is the same where all steps have the same size.
    """
    metrics, varies = row.metrics, row.planned.cell.config.workload.lengths != "fixed"
    run, window = metrics.get("run_peak_memory_allocated_bytes"), metrics.get("peak_memory_allocated_bytes")
    peak = metrics.get("steps_peak_memory_allocated_bytes") or (run if varies else window)
    return None if peak is None else peak / GB


def _law_of_2023_gb(row: Row) -> float | None:
    """Lit-GPT, inference: what rests on the device and, of 4-bit weights, the head unpacked to 16 bits and cast.

    bitsandbytes 0.41 unpacked each matrix before a product; the head is the largest, 2 · V · d bytes twice.
    """
    config, sizes = row.planned.cell.config, row.planned.cell.sizes
    if not row.metrics:
        return None
    packed = config.precision.backend == "bitsandbytes"
    unpacked = 4 * config.model.vocab_size * config.model.d_model if packed else 0
    return (arithmetic.memory_lower_bound_bytes(config, sizes) + unpacked) / GB


def _reserved_mib(row: Row) -> float | None:
    """minGPT: peak reserved by the allocator, MiB."""
    peak = row.metrics.get("peak_memory_reserved_bytes")
    return None if peak is None else peak / MIB


def _hardware_tflops(row: Row) -> float | None:
    """minGPT: FLOPs as dispatched, recomputation included, ÷ time, a device."""
    rate = row.metrics.get("hardware_flops_per_second_per_device")
    return None if rate is None else rate / 1e12


def _last_iteration_ms(row: Row) -> float | None:
    """minGPT: the last iteration alone."""
    samples = _samples(row)
    return samples[-1] * 1e3 if samples else None


def _model_tflops(row: Row) -> float | None:
    """The training benchmark: the mean of the rates of the steps, a device."""
    flops = _first_rank(row).get("flops", {}).get("model_per_step")
    samples = _samples(row)
    if flops is None or not samples:
        return None
    return statistics.fmean(flops / seconds for seconds in samples) / row.planned.cell.sizes.world_size / 1e12


def _tokens_per_second(row: Row) -> float | None:
    """The training benchmark: the mean of the rates of the steps, over all devices."""
    tokens, samples = _first_rank(row).get("tokens_per_step"), _samples(row)
    return statistics.fmean(tokens / seconds for seconds in samples) if tokens and samples else None


def _trainable(row: Row) -> float | None:
    return row.record.num_trainable_parameters if row.record else None


def _part(name: str, scale: float) -> Quantity:
    """llm-analysis: a part of a prediction, in the original's unit."""

    def part(row: Row) -> float | None:
        value = (row.planned.predicted or {}).get("parts", {}).get(name)
        return None if value is None else value * scale

    return part


def _predicted_gpu_hours(row: Row) -> float | None:
    """llm-analysis: GPU-hours of a whole training run, truncated as it prints them."""
    hours = _part("gpu_hours", 1.0)(row)
    return None if hours is None else int(hours)


PASS = ("attention", "mlp", "norm", "communication", "embedding", "head")
"""What a forward pass is made of."""
TIMED = ("prefill", "decode", "decode_cache", "micro_batch", "forward")
STORED = ("weight", "gradient", "optimizer", "activation", "cache")


def _utilization(name: str) -> Quantity:
    return lambda row: row.metrics.get(name)  # type: ignore[return-value]


QUANTITIES: dict[str, Quantity] = {
    "best_s": _best_s,
    "total_s": _total_s,
    "best_tokens_per_second": _best_tokens_per_second,
    "cold_tokens_per_second": _cold_tokens_per_second,
    "warm_tokens_per_second": _warm_tokens_per_second,
    "minutes_of_1000": _minutes_of_1000,
    "steps_peak_gb": _steps_peak_gb,
    "law_of_2023_gb": _law_of_2023_gb,
    "reserved_mib": _reserved_mib,
    "hardware_tflops": _hardware_tflops,
    "last_iteration_ms": _last_iteration_ms,
    "model_tflops": _model_tflops,
    "tokens_per_second": _tokens_per_second,
    "trainable_parameters": _trainable,
    "gpu_utilization_mean": _utilization("gpu_utilization_mean"),
    "gpu_utilization_sd": _utilization("gpu_utilization_sd"),
    "alloc_retries": _utilization("num_alloc_retries"),
    "predicted_gpu_hours": _predicted_gpu_hours,
    **{f"predicted_{name}_ms": _part(f"{name}_s", 1e3) for name in TIMED},
    **{f"predicted_{of}_{name}_ms": _part(f"{of}_{name}_s", 1e3) for of in ("forward", "decode") for name in PASS},
    **{f"predicted_{name}_gb": _part(f"{name}_bytes", 1 / GB) for name in STORED},
}
"""Name in a layout → what it is of a measured cell; None where it is unknown."""
