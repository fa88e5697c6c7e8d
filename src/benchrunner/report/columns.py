"""The columns of the results table: how each is read of a row, and with which type.

Columns hold numbers or nothing: why a number is missing stands in `status` and `reason`, not among the numbers.
"""

import shlex
from collections.abc import Callable
from typing import Any

from benchrunner.core import arithmetic
from benchrunner.core.cell import Cell, format_value
from benchrunner.core.checks import num_decided
from benchrunner.core.lengths import is_padded
from benchrunner.core.record import PHASES, Metrics, Phase
from benchrunner.report.row import NONE, Row


def _axis(name: str) -> Callable[[Row], Any]:
    return lambda row: row.planned.cell.axes[name]


def _size(name: str) -> Callable[[Row], Any]:
    return lambda row: getattr(row.planned.cell.sizes, name)


def _batch(name: str) -> Callable[[Row], Any]:
    """A size that a search leaves open."""
    return lambda row: getattr(row.sizes, name) if row.sizes else None


def _metric(read: Callable[[Metrics], float | None]) -> Callable[[Row], float | None]:
    return lambda row: read(row.metrics)


def _num_parameters(row: Row) -> int:
    measured = row.record.num_parameters if row.record else None
    return measured or arithmetic.num_parameters(row.planned.cell.config.model)


def _num_trainable_parameters(row: Row) -> int:
    measured = row.record.num_trainable_parameters if row.record else None
    config = row.planned.cell.config
    return measured or arithmetic.num_trainable_parameters(config.model, config.workload)


def _settings(row: Row) -> str:
    changed = row.planned.cell.overrides.items()
    return shlex.join(f"{key}={format_value(value)}" for key, value in changed) or NONE


def _phase(name: Phase) -> Callable[[Row], float | None]:
    return lambda row: row.record.phases_s.get(name) if row.record else None


def _commit(row: Row) -> str:
    environment = row.record.environment if row.record else None
    git = environment.get("git") if environment else None
    return (git or {}).get("commit") or row.commit or "unknown"


def _parity_tolerance(row: Row) -> str:
    check = row.record.checks.get("parity") if row.record else None
    return str(check["expected"]) if check and check.get("expected") is not None else NONE


def _predicted_bytes(row: Row) -> int | None:
    return (row.planned.predicted or {}).get("peak_memory_bytes")


def _predicted(name: str) -> Callable[[Row], float | None]:
    return lambda row: (row.planned.predicted or {}).get(name)  # type: ignore[return-value]


def predicted_peak_bytes(cell: Cell, metrics: Metrics) -> int | None:
    """The measured peak that is predicted; None on a CPU, whose peak is a process's.

    Where samples differ in length it is that of all steps: the longest one may come before the window.
    """
    if metrics.get("memory_scope") == "process":
        return None
    window, run = metrics.get("peak_memory_allocated_bytes"), metrics.get("run_peak_memory_allocated_bytes")
    # Records from before 30 November have no peak of the steps.
    return metrics.get("steps_peak_memory_allocated_bytes", run) if is_padded(cell) else window


def _memory_error(row: Row) -> float | None:
    """Predicted ÷ measured − 1 of a device's peak; None for a lower bound."""
    predicted, measured = row.planned.predicted or {}, predicted_peak_bytes(row.planned.cell, row.metrics)
    if not measured or predicted.get("bound") != "estimate":
        return None
    return predicted["peak_memory_bytes"] / measured - 1


def _step_time_error(row: Row) -> float | None:
    """Predicted ÷ measured − 1; None for a lower bound."""
    predicted, measured = row.planned.predicted or {}, row.metrics.get("step_time_median_s")
    seconds = predicted.get("step_time_s")
    return seconds / measured - 1 if seconds and measured and predicted.get("bound") == "estimate" else None


COLUMNS: dict[str, tuple[str, Callable[[Row], Any]]] = {
    "cell_id": ("text", lambda row: row.planned.cell.cell_id),
    "slug": ("text", lambda row: row.planned.cell.slug),
    "status": ("text", lambda row: row.status),
    "reason_code": ("text", lambda row: row.reason_code),
    "reason": ("text", lambda row: row.reason),
    "flags": ("text", lambda row: " ".join(row.flags) or NONE),
    "model": ("text", _axis("model")),
    "workload": ("text", _axis("workload")),
    "strategy": ("text", _axis("strategy")),
    "precision": ("text", _axis("precision")),
    "compile": ("text", _axis("compile")),
    "activation_checkpointing": ("text", _axis("activation_checkpointing")),
    "engine": ("text", _axis("engine")),
    "micro_batch_size": ("int", _batch("micro_batch_size")),
    "global_batch_size": ("int", _batch("global_batch_size")),
    "seq_len": ("int", _size("seq_len")),
    "world_size": ("int", _size("world_size")),
    "step_time_median_s": ("float", _metric(lambda m: m.get("step_time_median_s"))),
    "step_time_p10_s": ("float", _metric(lambda m: m.get("step_time_p10_s"))),
    "step_time_p90_s": ("float", _metric(lambda m: m.get("step_time_p90_s"))),
    "tokens_per_second_per_device": ("float", _metric(lambda m: m.get("tokens_per_second_per_device"))),
    "model_flops_per_second_per_device": ("float", _metric(lambda m: m.get("model_flops_per_second_per_device"))),
    "mfu": ("float", _metric(lambda m: m.get("mfu"))),
    "peak_memory_allocated_bytes": ("int", _metric(lambda m: m.get("peak_memory_allocated_bytes"))),
    "peak_memory_reserved_bytes": ("int", _metric(lambda m: m.get("peak_memory_reserved_bytes"))),
    "num_alloc_retries": ("int", _metric(lambda m: m.get("num_alloc_retries"))),
    "compile_time_s": ("float", _metric(lambda m: m.get("compile_time_s"))),
    "num_parameters": ("int", _num_parameters),
    "num_trainable_parameters": ("int", _num_trainable_parameters),
    "optimizer": ("text", _axis("optimizer")),
    "settings": ("text", _settings),
    "devices": ("int", _size("devices")),
    "nodes": ("int", _size("nodes")),
    "accumulation_steps": ("int", _batch("accumulation_steps")),
    "hardware": ("text", lambda row: row.hardware),
    "device_name": ("text", lambda row: row.device_name),
    "torch": ("text", lambda row: row.torch or "unknown"),
    "sweep": ("text", lambda row: row.sweep),
    "step_time_min_s": ("float", _metric(lambda m: m.get("step_time_min_s"))),
    "step_time_rank_skew": ("float", _metric(lambda m: m.get("step_time_rank_skew"))),
    "samples_per_second": ("float", _metric(lambda m: m.get("samples_per_second"))),
    "hardware_flops_per_second_per_device": ("float", _metric(lambda m: m.get("hardware_flops_per_second_per_device"))),
    "run_peak_memory_allocated_bytes": ("int", _metric(lambda m: m.get("run_peak_memory_allocated_bytes"))),
    "predicted_peak_memory_bytes": ("int", _predicted_bytes),
    "first_step_s": ("float", _metric(lambda m: m.get("first_step_s"))),
    "num_graphs": ("int", _metric(lambda m: m.get("num_graphs"))),
    "num_graph_breaks": ("int", _metric(lambda m: m.get("num_graph_breaks"))),
    "num_recompiles": ("int", _metric(lambda m: m.get("num_recompiles"))),
    "energy_j_per_step": ("float", _metric(lambda m: m.get("energy_j_per_step"))),
    "gpu_utilization_mean": ("float", _metric(lambda m: m.get("gpu_utilization_mean"))),
    "gpu_utilization_sd": ("float", _metric(lambda m: m.get("gpu_utilization_sd"))),
    "sm_clock_mhz_mean": ("float", _metric(lambda m: m.get("sm_clock_mhz_mean"))),
    "first_loss": ("float", _metric(lambda m: m.get("first_loss"))),
    "final_loss": ("float", _metric(lambda m: m.get("final_loss"))),
    "attention": ("text", lambda row: row.metrics.get("attention") or NONE),
    "time_to_first_token_s": ("float", _metric(lambda m: m.get("time_to_first_token_s"))),
    "time_per_output_token_s": ("float", _metric(lambda m: m.get("time_per_output_token_s"))),
    "prefill_tokens_per_second": ("float", _metric(lambda m: m.get("prefill_tokens_per_second"))),
    "decode_tokens_per_second": ("float", _metric(lambda m: m.get("decode_tokens_per_second"))),
    "bandwidth_utilization": ("float", _metric(lambda m: m.get("bandwidth_utilization"))),
    "attempt": ("int", lambda row: row.record.attempt if row.record else 0),
    "wall_s": ("float", lambda row: row.record.wall_s if row.record else None),
    "config_digest": ("text", lambda row: row.planned.cell.config_digest),
    "command": ("text", lambda row: command_of(row)),
    "parity_gradient_error": ("float", _metric(lambda m: m.get("parity_gradient_error"))),
    "parity_cosine": ("float", _metric(lambda m: m.get("parity_cosine"))),
    "parity_curve_error": ("float", _metric(lambda m: m.get("parity_curve_error"))),
    "predicted_by": ("text", lambda row: (row.planned.predicted or {}).get("method") or NONE),
    "predicted_step_time_s": ("float", _predicted("step_time_s")),
    "memory_error": ("float", _memory_error),
    "step_time_error": ("float", _step_time_error),
    "checks": ("text", lambda row: _checks(row)),
    "num_checks_decided": ("int", lambda row: _num_checks(row)[0]),
    "num_checks": ("int", lambda row: _num_checks(row)[1]),
}
"""Column → its kind and where it comes from. Other programs read them: append, never rename or reorder."""


COLUMNS |= {
    **{f"phase_{phase}_s": ("float", _phase(phase)) for phase in PHASES},
    "started_at": ("text", lambda row: (row.record.started_at if row.record else None) or NONE),
    "log_folder": ("text", lambda row: row.log_folder),
    "commit": ("text", _commit),
    "model_label": ("text", lambda row: row.model),
    "parity_tolerance": ("text", _parity_tolerance),
    "is_waiting": ("text", lambda row: "yes" if row.is_waiting else "no"),
    "search": ("text", lambda row: row.planned.cell.search or NONE),
    "probe_of": ("text", lambda row: row.planned.probe_of or NONE),
    "left_out": ("text", lambda row: shlex.join(row.planned.left_out) or NONE),
    "steps_peak_memory_allocated_bytes": ("int", _metric(lambda m: m.get("steps_peak_memory_allocated_bytes"))),
}


def _num_checks(row: Row) -> tuple[int | None, int | None]:
    """How many checks said yes or no, and how many there were; None where the cell was not measured."""
    checks = row.record.checks if row.record else {}
    return (num_decided(checks), len(checks)) if checks or (row.record and row.record.num_checks) else (None, None)


def _checks(row: Row) -> str:
    decided, checks = _num_checks(row)
    return NONE if checks is None else f"{decided}/{checks}"


def command_of(row: Row) -> str:
    """What repeats the cell when it is pasted into a shell."""
    if row.record and row.record.command:
        return row.record.command
    return shlex.join(["bench", *row.planned.cell.as_overrides()])
