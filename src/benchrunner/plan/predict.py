"""Memory and time of a cell without running it: what a plan says of it, by arithmetic."""

from typing import Literal, cast

from typing_extensions import TypedDict

from benchrunner.core import arithmetic
from benchrunner.core.arithmetic import PEFT_WORKLOADS
from benchrunner.core.cell import Cell, Sizes
from benchrunner.core.lengths import is_padded
from benchrunner.core.parity_cell import as_built
from benchrunner.core.schema import Config
from benchrunner.core.units import GIB
from benchrunner.machine.hardware import Hardware
from benchrunner.plan import formula_2023, what_if_2023
from benchrunner.plan.kept import widths_of
from benchrunner.plan.memory import peak_of
from benchrunner.plan.micro_batches import longest_sizes, typical_lengths, typical_sizes
from benchrunner.plan.step_time import predict_step

TRAINS = frozenset({"train", "lora", "adapter", "adapter_v2"})
"""Workloads whose step is forward, backward and update."""

CPU_CORE_FLOPS = 2e11
"""More than a core reaches on these models; a step that is hopeless at this speed is hopeless."""

CONTEXT_BYTES = int(0.6 * GIB)
"""What CUDA's context and libraries hold outside of the allocator; an assumption until a device is calibrated."""
NCCL_BYTES = int(1.0 * GIB)
"""The same of NCCL's channels between the devices of a host."""

CPU_SHARE = 0.7
"""Of a process's data on a CPU: what tensors have of it, for the heap gives back late. At 0.5 GiB the debug model's 148
samples fit, whose tensors need 0.72 of that in bf16; resident sets of training steps exceeded the tensors 1.3 to 1.6
times (glibc 2.36)."""
CPU_MARGIN = 0.15

Fit = Literal["fits", "fits_with_retries", "tight", "does_not_fit"]
"""fits_with_retries: what is needed does, but not what the allocator would cache beside it: it gives back and tries
again, which costs time. tight: the limit is within the margin."""


class Prediction(TypedDict, total=False):
    """What is known of a cell before it runs."""

    method: str
    """off | analytic | dry_run, or a formula's name."""
    bound: str
    """lower: the peak is at least this | estimate: see `margin`."""
    peak_memory_bytes: int
    """Of the allocator, on the device that needs most."""
    lower_bound_bytes: int
    """Parameters, gradients and optimizer state."""
    activation_bytes: int
    """In plans before predictions were estimates: what came on top of the lower bound."""
    margin: float
    """The peak may be off by this share of itself."""
    reserved_memory_bytes: int
    """What the allocator would take from the device if it could."""
    least_memory_bytes: int
    """The least that it can do with: between this and what is reserved it fits by retries. It is above the peak, since
    what is free in pieces is of no use to a larger block."""
    capacity_bytes: int | None
    """What the allocator may have: the device's memory or its emulated limit, less what lies outside of it."""
    fit: Fit | None
    phase: str
    """Of the step, in which the peak is reached."""
    step_time_s: float | None
    step_time_low_s: float | None
    """The interval that should hold nine times out of ten."""
    step_time_high_s: float | None
    tokens_per_second_per_device: float | None
    mfu: float | None
    limited_by: str | None
    """The resource that takes the largest part of the step."""
    micro_batch_size: int
    """Of a search alone: its first probe, which the rest is of; the largest that is predicted to fit."""
    note: str
    """Why another method than the one asked for was used, or what a formula leaves out."""
    parts: dict[str, float]
    """Of a formula: what its time and memory are made of, by name; seconds, bytes and counts."""
    refused: str
    """Why the formula has no answer."""


def predict(cell: Cell, hardware: Hardware) -> Prediction:
    """What can be said before running, as `predict` in the cell's configuration chooses.

    A time is None where the device's peak is unknown, the workload has no steps, or no CUDA graph is replayed.
    """
    asked, cell = cell, as_built(cell)
    lower = arithmetic.memory_lower_bound_bytes(cell.config, cell.sizes)
    prediction: Prediction = {"method": "off", "bound": "lower", "peak_memory_bytes": lower, "lower_bound_bytes": lower}
    if cell.config.predict.name == "off":
        return prediction
    if cell.config.predict.formula == formula_2023.NAME:
        formula = cast(Prediction, what_if_2023.predict(asked, hardware))
        prediction |= formula
        return prediction if "refused" in formula else with_fit(prediction, cell, hardware)
    prediction |= {"method": "analytic", **_memory(cell, lower, hardware), **_time(cell, hardware)}
    if note := left_out(cell):
        prediction["note"] = note
    return with_fit(prediction, cell, hardware)


def left_out(cell: Cell) -> str:
    """What the arithmetic does not know of a cell; empty where it knows it all."""
    config, is_fabric = cell.config, cell.axes["engine"] == "fabric"
    parts = {
        "what thunder's own FSDP holds, or thunder under autocast": is_unknown_under_thunder(cell),
        "FSDP1's flat parameters: taken for fully_shard": is_fabric and config.strategy.kind == "fsdp",
        "what a length costs when it is met first": is_padded(cell),
        "the time of CUDA graphs under FSDP, of which none is replayed since what is gathered moves: on H200s a step "
        "took 6.7 times DDP's": _replays_none(cell),
        "the time of attention=math, which takes 16 bits to fp32 and back": _attends_in_fp32(cell),
        "the network between nodes: taken for the links within one": cell.sizes.nodes > 1,
    }
    found = [part for part, holds in parts.items() if holds]
    return f"not modelled: {'; '.join(found)}" if found else ""


def _is_sharded(cell: Cell) -> bool:
    return cell.config.strategy.kind == "fsdp" and cell.sizes.world_size > 1


def _replays_none(cell: Cell) -> bool:
    """Whether CUDA graphs find their inputs at other addresses every time (docs/results/2026-11-21-h200-options.md)."""
    return _is_sharded(cell) and cell.config.compile.replays_graphs


def _attends_in_fp32(cell: Cell) -> bool:
    """Whether torch's own formula casts what it is given: with it a step took 2.5 to 2.9 times as long on an H200."""
    return cell.config.attention == "math" and widths_of(cell.config).activation < 4


def is_unknown_under_thunder(cell: Cell) -> bool:
    """Whether thunder compiles what its memory is not known of: a backward pass in its own FSDP, or under autocast."""
    axes, config = cell.axes, cell.config
    if axes["compile"] != "thunder" or axes["workload"] not in arithmetic.GRADIENT_WORKLOADS:
        return False
    width = widths_of(config)
    return (config.compile.scope == "model" and _is_sharded(cell)) or width.residual != width.activation


def _memory(cell: Cell, lower: int, hardware: Hardware) -> Prediction:
    on_cpu = hardware.device_type == "cpu"
    peak = peak_of(cell.config, longest_sizes(cell), on_cpu=on_cpu)
    return {
        "bound": "estimate",
        "peak_memory_bytes": max(peak.total_bytes, lower),
        "margin": max(margin_of(cell), CPU_MARGIN if on_cpu else 0.0),
        "phase": peak.phase,
    }


def _time(cell: Cell, hardware: Hardware) -> Prediction:
    sizes = typical_sizes(cell)
    step = predict_step(cell.config, sizes, hardware, typical_lengths(cell))
    if step is None or _replays_none(cell) or _attends_in_fp32(cell):
        return {"step_time_s": None}
    length = cell.config.generate.new_tokens if cell.config.workload.name == "generate" else sizes.seq_len
    tokens = sizes.global_batch_size * length / sizes.world_size
    return {
        "step_time_s": step.seconds,
        "step_time_low_s": step.low_s,
        "step_time_high_s": step.high_s,
        "tokens_per_second_per_device": tokens / step.seconds,
        "mfu": utilization(cell.config, sizes, hardware, step.seconds),
        "limited_by": step.limited_by,
    }


def utilization(config: Config, sizes: Sizes, hardware: Hardware, step_s: float) -> float | None:
    """MFU as the results define it: Σ FLOPs of a dtype ÷ its peak ÷ time; None where a peak is unknown."""
    parts = arithmetic.flops_by_dtype(config, sizes)
    peaks = hardware.peak_flops
    if any(not peaks.get(dtype) for dtype in parts):
        return None
    return sum(flops / peaks[dtype] for dtype, flops in parts.items()) / (step_s * sizes.world_size)


def margin_of(cell: Cell) -> float:
    """How far off the peak may be: what was left on 505 published cells (docs/results), rounded up."""
    axes, config = cell.axes, cell.config
    fsdp1 = axes["engine"] == "fabric" and config.strategy.kind == "fsdp" and axes["workload"] in PEFT_WORKLOADS
    if is_unknown_under_thunder(cell) or fsdp1:
        return 0.40
    fp8 = config.precision.backend in ("torchao", "transformer_engine")
    if fp8 or axes["compile"] == "thunder" or config.compile.dynamic:
        return 0.08
    if axes["workload"] != "train":
        return 0.05
    return 0.04


# --- does it fit


def with_fit(prediction: Prediction, cell: Cell, hardware: Hardware) -> Prediction:
    """The prediction with the memory that it is judged by, and the judgement."""
    capacity = capacity_bytes(cell, hardware)
    return {**prediction, "capacity_bytes": capacity, "fit": judge(prediction, capacity)}


def judge(prediction: Prediction, capacity: int | None) -> Fit | None:
    """Whether what is needed, give or take its margin, is within the capacity; None where that is unknown.

    Needed is the peak, or the least that the allocator can do with where that was replayed.
    """
    if capacity is None:
        return None
    needed = max(prediction["peak_memory_bytes"], prediction.get("least_memory_bytes", 0))
    margin = prediction.get("margin", 0.0)
    if needed * (1 - margin) > capacity:
        return "does_not_fit"
    if needed * (1 + margin) > capacity:
        return "tight"
    return "fits" if prediction.get("reserved_memory_bytes", 0) <= capacity else "fits_with_retries"


def memory_bytes(cell: Cell, hardware: Hardware) -> int | None:
    """All memory of one rank: the device's or its emulated limit, on a CPU a rank's share of the RAM."""
    whole = hardware.memory_bytes
    if whole is not None and hardware.device_type == "cpu":
        whole //= cell.sizes.devices
    limit_gib = cell.config.memory_limit_gib
    limits = [value for value in (whole, int(limit_gib * GIB) if limit_gib else None) if value is not None]
    return min(limits, default=None)


def capacity_bytes(cell: Cell, hardware: Hardware) -> int | None:
    """What tensors may have: on a GPU, less what the process holds outside of the allocator."""
    whole = memory_bytes(cell, hardware)
    if whole is None:
        return None
    return int(whole * CPU_SHARE) if hardware.device_type == "cpu" else max(whole - outside_bytes(cell, hardware), 0)


def outside_bytes(cell: Cell, hardware: Hardware) -> int:
    """Device memory of the process that is not the allocator's: context, libraries, and NCCL between several."""
    context = hardware.calibration.get("context_bytes", CONTEXT_BYTES)
    nccl = hardware.calibration.get("nccl_bytes", NCCL_BYTES) if cell.sizes.world_size > 1 else 0
    return int(context + nccl)


# --- sizes and bounds


def cpu_time_s(config: Config, sizes: Sizes, num_cores: int) -> float:
    """A time that the steps of a cell cannot beat on this many CPU cores."""
    if config.workload.name not in TRAINS:
        tokens = sizes.global_batch_size * sizes.seq_len
        flops = tokens * arithmetic.forward_flops_per_token(config.model, sizes.seq_len)
    else:
        flops = arithmetic.train_flops_per_step(config, sizes)
    return float(flops * (config.measure.steps + config.measure.warmup_steps) / (CPU_CORE_FLOPS * num_cores))
