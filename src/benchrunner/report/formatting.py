"""Tables as people read them: rounded numbers with units in the heading, only the columns that tell rows apart."""

import math
from collections.abc import Callable, Collection, Iterable
from typing import Any

import pandas as pd

from benchrunner.core.units import GIB
from benchrunner.plan.labels import SEPARATOR
from benchrunner.plan.verdict import PREDICTED_ONLY
from benchrunner.report.row import NONE, NUM_LAYERS
from benchrunner.report.shared_settings import IDENTIFYING, setting_words, varying, words_of_all

UNKNOWN = "–"

PLANTED = "fault:"
"""Begins the flag of a cell that a fault was planted in."""

Format = Callable[[float], str]

MEASURED: dict[str, tuple[str, Format]] = {
    "step_time_median_s": ("step ms", lambda value: significant(value * 1e3)),
    "step_time_p90_s": ("p90 ms", lambda value: significant(value * 1e3)),
    "tokens_per_second_per_device": ("tokens/s/device", lambda value: significant(value)),
    "time_to_first_token_s": ("first token ms", lambda value: significant(value * 1e3)),
    "decode_tokens_per_second": ("decode tokens/s", lambda value: significant(value)),
    "bandwidth_utilization": ("bandwidth %", lambda value: f"{value * 100:.1f}"),
    "model_flops_per_second_per_device": ("TFLOP/s/device", lambda value: significant(value / 1e12, 3)),
    "mfu": ("MFU %", lambda value: f"{value * 100:.1f}"),
    "peak_memory_allocated_bytes": ("peak GiB", lambda value: f"{value / GIB:.2f}"),
    "peak_memory_reserved_bytes": ("reserved GiB", lambda value: f"{value / GIB:.2f}"),
    "num_alloc_retries": ("alloc retries", lambda value: f"{value:.0f}"),
    "compile_time_s": ("compile s", lambda value: significant(value, 3)),
    "memory_error": ("predicted peak %", lambda value: f"{value:+.1%}".rstrip("%")),
    "step_time_error": ("predicted step %", lambda value: f"{value:+.1%}".rstrip("%")),
    "energy_j_per_step": ("J/step", lambda value: significant(value)),
    "parity_gradient_error": ("gradient error", lambda value: f"{value:.2g}"),
    "parity_cosine": ("1 − cosine", lambda value: f"{max(1 - value, 0):.2g}"),
    "parity_curve_error": ("curve error nats", lambda value: f"{value:.2g}"),
}
"""Column of results.csv → heading and format of the printed table."""

HEADINGS = {
    "model_label": "model",
    "activation_checkpointing": "checkpointing",
    "micro_batch_size": "micro-batch",
    "global_batch_size": "global batch",
    "seq_len": "seq len",
    "world_size": "world",
    "reason_code": "code",
    "num_cells": "cells",
}


def significant(value: float, digits: int = 4) -> str:
    """Rounded to so many digits, without exponent, thousands apart: 10368.1 → `10,370`, 0.0123456 → `0.01235`."""
    if value == 0:
        return "0"
    rounded = float(f"{value:.{digits}g}")
    if not math.isfinite(rounded):  # a number near the largest in a smaller unit, or rounded up
        return UNKNOWN
    magnitude = len(str(int(abs(rounded)))) if abs(rounded) >= 1 else _leading_zeros(rounded)
    return f"{rounded:,.{max(digits - magnitude, 0)}f}"


def _leading_zeros(value: float) -> int:
    """Digits before the first that counts, as a magnitude: 0.5 → 0, 0.05 → -1."""
    return 1 + int(f"{value:e}".partition("e")[2])


def measured_table(results: pd.DataFrame) -> pd.DataFrame:
    """The cells that are ok, every field a text; columns that nothing was measured for are left out."""
    ok = measured_rows(results)
    frame = labels(results, ok)
    for name, (heading, form) in MEASURED.items():
        if ok[name].notna().any():
            frame[heading] = [_format(value, form) for value in ok[name]]
    if (ok["checks"] != NONE).any():
        frame["checks"] = ok["checks"].to_numpy()
    if (ok["workload"] == "parity").any():
        frame["tolerance"] = [_tolerance(*pair) for pair in zip(ok["workload"], ok["parity_tolerance"], strict=True)]
    frame["flags"] = ok["flags"].to_numpy()
    return frame.reset_index(drop=True)


def measured_rows(results: pd.DataFrame) -> pd.DataFrame:
    """The cells that are ok, but for searches: what is measured are their probes."""
    return results[(results["status"] == "ok") & (results["search"] == NONE)]


def searches_table(results: pd.DataFrame) -> pd.DataFrame:
    """The searches that came to their end, and what each has found by which probes."""
    over = results[(results["status"] == "ok") & (results["search"] != NONE)]
    return labels(results, over).assign(found=over["reason"].to_numpy()).reset_index(drop=True)


def _tolerance(workload: str, text: str) -> str:
    """What the errors of a parity cell are held to; the workloads beside it have none."""
    if workload != "parity":
        return UNKNOWN
    return "none measured yet" if text == NONE else text


def predicted_table(results: pd.DataFrame) -> pd.DataFrame:
    """The cells that are their prediction alone, every field a text."""
    alone = results[results["reason_code"] == PREDICTED_ONLY]
    frame = labels(results, alone)
    frame["peak GiB"] = [gib(None if pd.isna(value) else value) for value in alone["predicted_peak_memory_bytes"]]
    seconds = [None if pd.isna(value) else 1e3 * value for value in alone["predicted_step_time_s"]]
    frame["step ms"] = [number(value) for value in seconds]
    frame["predicted by"] = alone["predicted_by"].to_numpy()
    return frame.reset_index(drop=True)


def unmeasured_table(results: pd.DataFrame) -> pd.DataFrame:
    """The cells that are not ok, and why; but for those that were to be predicted alone."""
    others = results[(results["status"] != "ok") & (results["reason_code"] != PREDICTED_ONLY)]
    frame = labels(results, others)
    for name in ("status", "reason_code", "reason"):
        frame[HEADINGS.get(name, name)] = others[name].to_numpy()
    return frame.reset_index(drop=True)


def unknown_metrics(results: pd.DataFrame) -> list[str]:
    """Headings that the measured table lacks, of the ones that every reader looks for where something is timed."""
    timed = (results["workload"] != "parity") & ~results["flags"].str.contains(PLANTED)
    ok = results[(results["status"] == "ok") & timed]
    expected = ("tokens_per_second_per_device", "mfu", "peak_memory_allocated_bytes")
    return [MEASURED[name][0] for name in expected if len(ok) and not ok[name].notna().any()]


def as_text(frame: pd.DataFrame) -> pd.DataFrame:
    """Any table with every field a text and headings for people."""
    return frame.map(lambda value: UNKNOWN if pd.isna(value) else str(value)).rename(columns=HEADINGS)


def labels(results: pd.DataFrame, part: pd.DataFrame | None = None) -> pd.DataFrame:
    """What tells the rows of the whole table apart, for some of them (None: all); the model where nothing does."""
    part = results if part is None else part
    moving = set(varying(results, IDENTIFYING))
    moving |= {"micro_batch_size"} if "search" in moving else set()
    names = [name for name in IDENTIFYING if name in moving and name != "search"]
    if "global_batch_size" in names and _follows(results):
        names.remove("global_batch_size")
    columns = {HEADINGS.get(name, name): _label(part, name) for name in names if name != "settings"}
    said = _own_settings(results, names) if "settings" in names else {}
    if any(said.values()):
        columns["settings"] = [said[text] or NONE for text in part["settings"]]
    return pd.DataFrame(columns or {"model": part["model_label"].tolist()})


def _label(part: pd.DataFrame, name: str) -> list[str]:
    """The values of a column; a micro-batch that is searched for is `max`, and once it is found `max = 12`."""
    texts = [UNKNOWN if pd.isna(value) else str(value) for value in part[name]]
    if name != "micro_batch_size":
        return texts
    pairs = zip(part["search"], texts, strict=True)
    return [text if kind == NONE else kind if text == UNKNOWN else f"{kind} = {text}" for kind, text in pairs]


def cell_labels(results: pd.DataFrame) -> list[str]:
    """What tells each row from the others, in a few words: `ddp · bf16 · micro-batch 4`."""
    return row_labels(labels(results))


def row_labels(frame: pd.DataFrame) -> list[str]:
    """Each row of `labels`, or of some of its columns, in a few words."""
    names = [str(name) for name in frame.columns]
    return [_said(zip(names, map(str, row), strict=True)) for row in frame.to_numpy().tolist()]


def _said(pairs: Iterable[tuple[str, str]]) -> str:
    """Options as they are; no settings need not be said."""
    said = [f"{name} {text}" if _needs_heading(name, text) else text for name, text in pairs
            if (name, text) != ("settings", NONE)]  # fmt: skip
    return SEPARATOR.join(said) or "the usual"


def _needs_heading(name: str, text: str) -> bool:
    """A number, `none` and `full` say nothing without it."""
    return text[:1].isdigit() or text == NONE or name == HEADINGS["activation_checkpointing"]


def _own_settings(results: pd.DataFrame, names: Collection[str]) -> dict[str, str]:
    """Settings → those of them that neither all rows share nor a column (`names`) of its own shows."""
    words = {text: setting_words(text) for text in results["settings"].unique()}
    shared = set(words_of_all(results)[0])
    on_one_node = bool((results["nodes"] == 1).all()) if "nodes" in results else False
    shown = {NUM_LAYERS, "micro_batch_size", "seq_len", *names, *(["devices"] if on_one_node else [])}
    return {
        text: " ".join(word for word in own if word not in shared and word.partition("=")[0] not in shown)
        for text, own in words.items()
    }


def _follows(results: pd.DataFrame) -> bool:
    """Whether the global batch is only micro-batch × world size."""
    return bool((results["global_batch_size"] == results["micro_batch_size"] * results["world_size"]).all())


def gib(value: float | None) -> str:
    """Bytes in GiB, three significant digits."""
    return UNKNOWN if value is None else significant(value / GIB, 3)


def number(value: float | None) -> str:
    """Three significant digits."""
    return UNKNOWN if value is None else significant(value, 3)


def _format(value: Any, form: Format) -> str:
    return UNKNOWN if pd.isna(value) else form(float(value))
