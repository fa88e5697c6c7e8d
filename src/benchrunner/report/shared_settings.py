"""What tells the rows of a results table apart, and what all of them share."""

import shlex
from collections.abc import Iterable

import pandas as pd

from benchrunner.core.axes import AXES
from benchrunner.report.row import NONE, NUM_LAYERS


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
