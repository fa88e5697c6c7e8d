"""The only package that imports Hydra: overrides → one plain, composed dict a row of the matrix.

Hydra composes every option once, on top of all fixed overrides; the product of the pieces is ours, because composing
each row takes Hydra about 100 ms. No plug-in and no `hydra.main`: those would decide exit codes and directories for us.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from benchrunner.config.hydra_app.answers import Option, complete, list_groups, list_options, pass_through
from benchrunner.config.hydra_app.loader import explained, opened, schema_defaults
from benchrunner.config.hydra_app.options import option_alone, pieces_of
from benchrunner.config.hydra_app.overrides import (
    check_asked,
    meant_by_bare_word,
    parse_overrides,
    read_overrides,
    require_multirun,
)
from benchrunner.config.hydra_app.sweeps import SWEEPS, compose_sweep, matrices_of, params_of, sweep_of
from benchrunner.config.matrix import Pieces, Row, build_rows
from benchrunner.core.axes import GROUPS

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
    stated: frozenset[str] = frozenset()
    """The groups and keys that the command line says, as opposed to a sweep's file."""
    untouched: Callable[[str, str], Mapping[str, Any]] = lambda group, name: untouched_section(group, name)
    """(group, option) → its section as the option file alone has it; of a section without options, the defaults."""


def untouched_section(group: str, name: str, pieces: Pieces | None = None) -> Mapping[str, Any]:
    """A section that no override has changed, from what was composed anyway where it is there."""
    if group not in GROUPS:
        defaults: dict[str, dict[str, Any]] = schema_defaults()
        return defaults[group]
    section: Mapping[str, Any] | None = pieces.pristine.get(group, {}).get(name) if pieces else None
    if section is not None:
        return section
    with opened() as loader:
        return option_alone(loader, group, name)


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
    return Expansion(
        rows=rows,
        sweep_name=name,
        arguments=given,
        models=pieces.pristine["model"],
        stated=frozenset(stated),
        untouched=partial(untouched_section, pieces=pieces),
    )


def read_values(overrides: Sequence[str]) -> dict[str, Any]:
    """Dotted key → its checked value, of overrides that compose nothing.

    Raises:
        UsageError: an override that is wrong in itself (`ConfigError` when it has a key), or has several values.
    """
    with opened() as loader, explained():
        assignments = read_overrides(loader, parse_overrides(loader, overrides))
        require_multirun(assignments)
    return {key: assignment.values[0] for key, assignment in assignments.items()}
