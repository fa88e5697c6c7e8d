"""The only package that imports Hydra: overrides → one plain, composed dict a row of the matrix.

Hydra composes every option once, on top of all fixed overrides; the product of the pieces is ours, because composing
each row takes Hydra about 100 ms. No plug-in and no `hydra.main`: those would decide exit codes and directories for us.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchrunner.config.hydra_app.answers import Option, complete, list_groups, list_options, pass_through
from benchrunner.config.hydra_app.loader import explained, opened
from benchrunner.config.hydra_app.options import pieces_of
from benchrunner.config.hydra_app.overrides import (
    check_asked,
    meant_by_bare_word,
    parse_overrides,
    read_overrides,
    require_multirun,
)
from benchrunner.config.hydra_app.sweeps import SWEEPS, compose_sweep, matrices_of, params_of, sweep_of
from benchrunner.config.matrix import Row, build_rows

__all__ = [
    "Expansion",
    "Option",
    "complete",
    "expand",
    "list_groups",
    "list_options",
    "meant_by_bare_word",
    "pass_through",
    "read_values",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Expansion:
    """The rows that the overrides mean, in order, each once."""

    rows: list[Row]
    sweep_name: str
    """The sweep file's stem, or `cli`."""
    arguments: list[str]
    """As given: `-m`, the sweep file, the overrides."""
    models: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Model → the section of its option file alone."""


def expand(overrides: Sequence[str], *, multirun: bool, sweep_file: Path | None = None) -> Expansion:
    """Compose every row that `overrides` describe.

    Args:
        overrides: Hydra's: `key=value`, `key=a,b`, `key=glob(x*)`, `key=range(1,5)`, `+sweeps=NAME`.
        multirun: `-m` was given; implied by a sweep.
        sweep_file: a sweep from anywhere, as `+sweeps=NAME` is one from `sweeps/`.

    Raises:
        UsageError: an override that is wrong in itself (`ConfigError` when it has a key).
    """
    with opened() as loader, explained():
        parsed = parse_overrides(loader, overrides)
        sweep = sweep_of(loader, parsed, sweep_file)
        stated = read_overrides(loader, [one for one in parsed if one.key_or_group != SWEEPS])
        if sweep is None and not multirun:
            require_multirun(stated)
        master = compose_sweep(loader, sweep) if sweep else {}
        params = read_overrides(loader, parse_overrides(loader, params_of(master)))
        merged = {**params, **stated}
        matrices = matrices_of(loader, master, merged, stated)
        pieces = pieces_of(loader, merged, matrices, sweep)
        rows = build_rows(matrices, pieces)
        check_asked(matrices, rows)
    name = sweep_file.stem if sweep_file else sweep or "cli"
    given = [*(["-m"] if multirun else []), *([str(sweep_file)] if sweep_file else []), *overrides]
    return Expansion(rows=rows, sweep_name=name, arguments=given, models=pieces.pristine["model"])


def read_values(overrides: Sequence[str]) -> dict[str, Any]:
    """Dotted key → its checked value, of overrides that compose nothing.

    Raises:
        UsageError: an override that is wrong in itself (`ConfigError` when it has a key), or has several values.
    """
    with opened() as loader, explained():
        assignments = read_overrides(loader, parse_overrides(loader, overrides))
        require_multirun(assignments)
    return {key: assignment.values[0] for key, assignment in assignments.items()}
