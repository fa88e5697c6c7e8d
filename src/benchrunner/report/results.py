"""The results table: one row a planned cell, also for those that did not run, and never a blank.

Columns hold numbers or nothing: why a number is missing stands in `status` and `reason`, not among the numbers.
"""

import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from benchrunner.core import arithmetic
from benchrunner.core.axes import AXES
from benchrunner.core.cell import Cell, Sizes, format_value
from benchrunner.core.checks import num_decided
from benchrunner.core.lengths import is_padded
from benchrunner.core.record import PHASES, Metrics, Phase, Record
from benchrunner.plan.plan import ModelCard, PlannedCell
from benchrunner.plan.search import probe_of
from benchrunner.plan.verdict import PREDICTED_ONLY

NO_RECORD = "skipped.interrupted"
"""The code of a cell that was to be run and has no record: the sweep is still running, or was stopped before it."""

UNDECIDED = frozenset({NO_RECORD, "skipped.budget", "skipped.brake", "skipped.disk"})
"""Codes of cells that the sweep did not get to; `bench resume` runs them."""

NUM_LAYERS = "model.num_layers"

NONE = "none"
"""What a text column says where there is nothing to say (an empty field would be a blank)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A planned cell, its record when there is one, and the sweep that it belongs to."""

    planned: PlannedCell
    record: Record | None
    sweep: str
    hardware: str
    device_name: str
    torch: str | None
    problem: str | None = None
    """Why the record file could not be used."""
    card: ModelCard | None = None
    """Of the model, where overrides changed it."""
    commit: str | None = None
    """Of the checkout that the sweep was begun with."""

    @property
    def model(self) -> str:
        """The model as it ran: `llama2-7b (2 of 32 layers)`."""
        name, layers = self.planned.cell.axes["model"], self.planned.cell.config.model.num_layers
        if NUM_LAYERS not in self.planned.cell.overrides:
            return name
        whole = f" of {self.card['num_layers']}" if self.card else ""
        return f"{name} ({layers}{whole} layers)"

    @property
    def is_waiting(self) -> bool:
        """Whether the cell was to run and nobody can say yet what becomes of it."""
        return self.planned.verdict == "run" and self.status == "skipped" and self.reason_code in UNDECIDED

    @property
    def is_prediction(self) -> bool:
        """Whether the cell is its prediction alone (`predict=only`)."""
        return self.reason_code == PREDICTED_ONLY

    @property
    def log_folder(self) -> str:
        """Where the logs of its last attempt are, from the sweep's directory; `none` when it was never launched."""
        if self.record is None or not self.record.attempt:
            return NONE
        return f"cells/{self.record.slug}/attempt-{self.record.attempt}"

    @property
    def status(self) -> str:
        """The record's status; without a record the plan's verdict."""
        if self.record:
            return self.record.status
        return "skipped" if self.planned.verdict == "run" else self.planned.verdict

    @property
    def reason_code(self) -> str:
        """Why, as a code; `none` when ok."""
        if self.record:
            return self.record.reason_code or NONE
        return self.planned.reason_code or NO_RECORD

    @property
    def reason(self) -> str:
        """Why, in a sentence; `none` when ok."""
        if self.record:
            return self.record.reason or NONE
        return self.problem or self.planned.reason or "no record: not run yet, or interrupted before it ended"

    @property
    def flags(self) -> list[str]:
        """What a reader should know before trusting the number; a planted fault says so."""
        flags = [*self.planned.flags, *(self.record.flags if self.record else [])]
        fault = [f"fault:{self.record.fault}"] if self.record and self.record.fault else []
        return list(dict.fromkeys(flags + fault))

    @property
    def sizes(self) -> Sizes | None:
        """Of the cell; of a search those of what it has found, None where that is nothing (yet)."""
        cell = self.planned.cell
        if cell.search is None:
            return cell.sizes
        search = ((self.record.evidence if self.record else None) or {}).get("search")
        found = search["micro_batch_size"] if search else None
        return probe_of(cell, found, ()).sizes if found else None

    @property
    def metrics(self) -> Metrics:
        """The headline numbers; none unless the cell is ok and no fault was planted: anything else measured nothing."""
        record = self.record
        return record.metrics if record and record.status == "ok" and not record.fault else {}


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

    Where samples differ in length it is the whole run's: the longest one may come before the window.
    """
    if metrics.get("memory_scope") == "process":
        return None
    name = "run_peak_memory_allocated_bytes" if is_padded(cell) else "peak_memory_allocated_bytes"
    return metrics.get(name)  # type: ignore[return-value]


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

SETTING = "config."
"""Before the dotted key, the name of a column that some sweeps have: a setting that overrides vary there."""

_DTYPES = {"text": "object", "int": "Int64", "float": "Float64"}


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


def results_table(rows: Sequence[Row], names: Iterable[str] = tuple(COLUMNS)) -> pd.DataFrame:
    """One line a row, columns and dtypes as in COLUMNS (or some of them); unknown numbers are NA."""
    columns = {}
    for name in names:
        kind, value_of = COLUMNS[name]
        columns[name] = pd.Series([_number(value_of(row), kind) for row in rows], dtype=_DTYPES[kind])
    return pd.DataFrame(columns)


def varied_settings(rows: Sequence[Row]) -> pd.DataFrame:
    """A column for each leaf that overrides vary between the rows, as `config.KEY`; texts as overrides read them."""
    changed = dict.fromkeys(key for row in rows for key in row.planned.cell.overrides)
    columns = {key: [_setting(row, key) for row in rows] for key in changed}
    return pd.DataFrame({SETTING + key: texts for key, texts in columns.items() if len(set(texts)) > 1}, dtype="object")


def _setting(row: Row, key: str) -> str:
    value: Any = row.planned.cell.config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else getattr(value, part, None)
    return format_value(getattr(value, "name", value))


def _number(value: Any, kind: str) -> Any:
    """A value of its column's kind; None, never text, among numbers."""
    if kind == "text":
        return str(value)
    if value is None or isinstance(value, str) or value != value:
        return None
    return int(value) if kind == "int" else float(value)


def varying(results: pd.DataFrame, names: Iterable[str]) -> list[str]:
    """The columns that tell rows apart."""
    return [name for name in names if results[name].nunique(dropna=False) > 1]


IDENTIFYING = (
    "model_label",
    *AXES[1:],
    "search",
    "micro_batch_size",
    "global_batch_size",
    "seq_len",
    "world_size",
    "settings",
    "hardware",
    "torch",
)
"""Columns that can tell two rows apart, in the order of every table."""


def constant_text(results: pd.DataFrame) -> str:
    """What all rows have in common, e.g. `model debug, workload train`; empty where nothing is."""
    moving = set(varying(results, IDENTIFYING))
    moving |= {"micro_batch_size", "global_batch_size"} if "search" in moving else set()
    unknown = {name for name in SIZES if len(results) and pd.isna(results[name].iloc[0])}
    names = [name for name in (*IDENTIFYING[: len(AXES)], *SIZES) if name not in moving | unknown]
    return ", ".join(f"{SHARED_AS.get(name, name)} {results[name].iloc[0]}" for name in names if len(results))


SIZES = ("micro_batch_size", "global_batch_size", "seq_len", "world_size")
SHARED_AS = {
    "model_label": "model",
    "micro_batch_size": "micro-batch",
    "global_batch_size": "global batch",
    "seq_len": "seq len",
    "world_size": "world",
}
"""Column → what it is called where all rows share its value."""


def shared_settings(results: pd.DataFrame) -> list[str]:
    """The overrides that every row has, or would have if it read them, and that `constant_text` does not say."""
    said = {NUM_LAYERS, *(name for name in SIZES if name not in varying(results, SIZES))}
    every, unread = words_of_all(results)
    own = [word for word in every if word.partition("=")[0] not in said]
    return [shlex.quote(word) + (" (where it is read)" if word in unread else "") for word in own]


def words_of_all(results: pd.DataFrame) -> tuple[list[str], set[str]]:
    """The overrides of every row, but for those that do not read them; and which of them some row does not read."""
    unread = results["left_out"] if "left_out" in results else [NONE] * len(results)
    pairs = {pair: tuple(map(setting_words, pair)) for pair in zip(results["settings"], unread, strict=True)}
    words = dict.fromkeys(word for own, _ in pairs.values() for word in own)
    every = [word for word in words if all(word in own or word in left_out for own, left_out in pairs.values())]
    return every, {word for _, left_out in pairs.values() for word in left_out}


def setting_words(text: str) -> list[str]:
    """The column `settings` → its overrides."""
    return [] if text == NONE else shlex.split(text)


def count_statuses(results: pd.DataFrame) -> Mapping[str, int]:
    """Status → number of cells, most frequent first."""
    return {str(status): int(count) for status, count in results["status"].value_counts().items()}


def reasons_table(results: pd.DataFrame) -> pd.DataFrame:
    """Every reason code with the number of its cells and the first cell's sentence."""
    others = results[results["status"] != "ok"]
    grouped = others.groupby(["status", "reason_code"], sort=False)
    return pd.DataFrame(
        [(status, code, len(cells), cells["reason"].iloc[0]) for (status, code), cells in grouped],
        columns=["status", "reason_code", "num_cells", "reason"],
    )
