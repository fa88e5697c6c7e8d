"""The product of composed pieces: which rows a matrix has, what each row changed, and which rows are struck out."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from benchrunner.config import keys
from benchrunner.core.axes import AXES, GROUPS
from benchrunner.core.cell import format_value, identity_overrides
from benchrunner.core.errors import ConfigError
from benchrunner.core.patterns import read_pattern
from benchrunner.core.schema import SECTIONS, Config, typed_section

OF_THE_SWEEP = ("out_dir", "launcher", "brake", "retries", "repeats")
"""Top-level keys that a sweep has once, whatever its cells are."""

NOT_REPEATED = frozenset({"sweep", "out_dir"})
"""Changed top-level keys that are no part of the command that repeats a cell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One composed row. Sections of the configuration are shared between rows and must never be changed."""

    axes: Mapping[str, str]
    """Axis group → composed option name."""
    overrides: Mapping[str, Any]
    """Dotted leaf → value, for every leaf changed away from its option file or the schema's default; with the names of
    a launcher and a hardware other than the usual ones, which are no axes."""
    config: Config
    """The whole configuration, resolved."""
    excluded_reason: str | None = None
    """Why `sweep.exclude` struck the row out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """One product: key → values, the last key varying fastest. A key is a group or a dotted leaf."""

    axes: Mapping[str, Sequence[Any]]
    place: str = "hydra.sweeper.params"
    """Where a sweep's file has it, for messages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pieces:
    """What rows are put together from."""

    base: Mapping[str, Any]
    """The configuration of the fixed overrides alone."""
    options: Mapping[str, Mapping[str, Any]]
    """Group → option → its section, composed on top of the fixed overrides."""
    pristine: Mapping[str, Mapping[str, Any]]
    """Group → composed name → the section of the option file alone."""
    defaults: Mapping[str, Any]
    """The schema's defaults."""


def build_rows(matrices: Sequence[Matrix], pieces: Pieces) -> list[Row]:
    """The rows of all products in order, each once, the struck-out ones marked.

    Raises:
        ConfigError: two products have one cell with different settings, or differ in what a sweep has once.
    """
    builder = _Builder(pieces)
    strike = _exclusions(pieces.base["sweep"]["exclude"])
    typed = _Typed()
    seen: dict[tuple[Any, ...], tuple[Matrix, Mapping[str, Any]]] = {}
    first: tuple[Matrix, Mapping[str, Any]] | None = None
    rows = []
    for matrix in matrices:
        for axes, overrides, config in builder.product(matrix):
            first = first or (matrix, config)
            _refuse_another_sweep(first, (matrix, config))
            identity = (*axes.values(), repr(identity_overrides(overrides)))
            if identity in seen:
                _refuse_other_settings(seen[identity], (matrix, overrides))
                continue
            seen[identity] = matrix, overrides
            reason = strike(axes, config)
            rows.append(Row(axes=axes, overrides=overrides, config=typed.config(config), excluded_reason=reason))
    return rows


def _refuse_another_sweep(one: tuple[Matrix, Mapping[str, Any]], other: tuple[Matrix, Mapping[str, Any]]) -> None:
    """What a sweep has once is the same in all of its rows; a list of it was refused before."""
    if one[0] is other[0] or all(one[1][key] == other[1][key] for key in OF_THE_SWEEP):
        return
    values = [keys.flatten({key: config[key] for key in OF_THE_SWEEP}) for _, config in (one, other)]
    key = next(key for key in values[0] | values[1] if values[0].get(key) != values[1].get(key))
    said = [f"{matrix.place} has {value.get(key)}" for (matrix, _), value in zip((one, other), values, strict=True)]
    way = "write it outside of the rows, or run a sweep for each"
    raise ConfigError(key, f"a sweep has one, but {' and '.join(said)}; {way}")


def _refuse_other_settings(one: tuple[Matrix, Mapping[str, Any]], other: tuple[Matrix, Mapping[str, Any]]) -> None:
    """A cell that two products have is one, and so are its settings; of one product see `check_asked`."""
    (matrix, settings), (another, others) = one, other
    if matrix is another or settings == others:
        return
    key = next(key for key in {**settings, **others} if settings.get(key) != others.get(key))
    said = [f"{key}={format_value(values[key])}" if key in values else "without it" for values in (settings, others)]
    rows = f"{matrix.place} ({said[0]}) and {another.place} ({said[1]}) have the same cell"
    raise ConfigError(key, f"does not tell cells apart, and {rows}; give both one value, or run a sweep for each")


@dataclass(slots=True)
class _Builder:
    """Puts rows together; a section that several rows share is made once."""

    pieces: Pieces
    sections: dict[tuple[Any, ...], tuple[dict[str, Any], dict[str, Any]]] = field(default_factory=dict)

    def product(self, matrix: Matrix) -> Iterator[tuple[dict[str, str], dict[str, Any], dict[str, Any]]]:
        names = tuple(matrix.axes)
        varied = tuple(key for key in self.pieces.base if any(name.partition(".")[0] == key for name in names))
        fixed = self._fixed(varied)
        inner = {section: [name for name in names if name.startswith(f"{section}.")] for section in varied}
        for values in itertools.product(*matrix.axes.values()):
            yield self._row(dict(zip(names, values, strict=True)), inner, fixed)

    def _fixed(self, varied: Sequence[str]) -> dict[str, dict[str, Any]]:
        """The changed leaves of every part that this product does not vary."""
        return {key: self._changes(key, value) for key, value in self.pieces.base.items() if key not in varied}

    def _row(
        self, point: Mapping[str, Any], inner: Mapping[str, Sequence[str]], fixed: Mapping[str, Mapping[str, Any]]
    ) -> tuple[dict[str, str], dict[str, Any], dict[str, Any]]:
        config = dict(self.pieces.base)
        overrides: dict[str, Any] = {}
        for key in config:
            if key in fixed:
                overrides.update(fixed[key])
            else:
                config[key], changes = self._varied(key, point, inner[key])
                overrides.update(changes)
        return {group: config[group]["name"] for group in AXES}, overrides, config

    def _varied(self, key: str, point: Mapping[str, Any], leaves: Sequence[str]) -> tuple[Any, Mapping[str, Any]]:
        """One top-level part of a row: its value and what it changed."""
        option = point.get(key)
        if not isinstance(self.pieces.base[key], Mapping):
            return option, self._changes(key, option)
        memo = (key, option, *((leaf, repr(point[leaf])) for leaf in leaves))
        if memo not in self.sections:
            section = self.pieces.options[key][option] if option is not None else self.pieces.base[key]
            for leaf in leaves:
                section = _with(section, leaf.split(".")[1:], point[leaf])
            self.sections[memo] = dict(section), self._changes(key, section)
        return self.sections[memo]

    def _changes(self, key: str, value: Any) -> dict[str, Any]:
        if key in NOT_REPEATED:
            return {}
        if not isinstance(value, Mapping):
            return {} if value == self.pieces.defaults[key] else {key: value}
        untouched = self.pieces.pristine[key][value["name"]] if key in GROUPS else self.pieces.defaults[key]
        before = keys.flatten(untouched, f"{key}.")
        changes = {leaf: item for leaf, item in keys.flatten(value, f"{key}.").items() if before.get(leaf) != item}
        if key in GROUPS and key not in AXES and value["name"] != DEFAULT_OPTIONS[key]:
            changes = {key: value["name"], **changes}
        return changes


class _Typed:
    """Composed sections as their types, each made once: rows go on sharing them."""

    def __init__(self) -> None:
        self._sections: dict[int, tuple[Mapping[str, Any], Any]] = {}
        """Identity of a section → it, so that it lives on, and its typed form."""

    def config(self, tree: Mapping[str, Any]) -> Config:
        """The whole tree of a row."""
        return Config(**{key: self._section(key, value) if key in SECTIONS else value for key, value in tree.items()})

    def _section(self, key: str, value: Mapping[str, Any]) -> Any:
        if id(value) not in self._sections:
            self._sections[id(value)] = value, typed_section(key, value)
        return self._sections[id(value)][1]


DEFAULT_OPTIONS = {"launcher": "local", "hardware": "auto", "predict": "analytic"}
"""The options that need no override."""


def _with(tree: Mapping[str, Any], path: Sequence[str], value: Any) -> dict[str, Any]:
    """A copy of `tree` with one leaf replaced."""
    head, *rest = path
    return {**tree, head: _with(tree[head], rest, value) if rest else value}


# --- sweep.exclude -------------------------------------------------------------------------------------------------


class _Exclusions:
    """`sweep.exclude`: the first entry whose patterns all match gives the reason. Patterns as in conf/compat.yaml."""

    def __init__(self, entries: Sequence[Mapping[str, Any]]) -> None:
        self.entries = [(_match_of(entry), str(entry["reason"])) for entry in entries]

    def __call__(self, axes: Mapping[str, str], config: Mapping[str, Any]) -> str | None:
        for match, reason in self.entries:
            if all(fits(_value_at(key, axes, config)) for key, fits in match.items()):
                return reason
        return None


def _exclusions(entries: Sequence[Mapping[str, Any]]) -> _Exclusions:
    for entry in entries:
        if set(entry) != {"match", "reason"} or not isinstance(entry["match"], Mapping) or not entry["reason"]:
            raise ConfigError("sweep.exclude", f"{dict(entry)!r} is not {{match: {{key: pattern}}, reason: text}}")
    return _Exclusions(entries)


def _match_of(entry: Mapping[str, Any]) -> dict[str, Callable[[Any], bool]]:
    """The patterns of an entry, keys checked; nested mappings are dotted keys."""
    match = keys.flatten(entry["match"])
    for key in match:
        if key not in GROUPS:
            keys.check_key(key)
    if not match:
        raise ConfigError("sweep.exclude", "an empty match would strike out every row")
    return {key: cache(read_pattern(pattern)) for key, pattern in match.items()}


def _value_at(key: str, axes: Mapping[str, str], config: Mapping[str, Any]) -> Any:
    if key in axes:
        return axes[key]
    value: Any = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value.get("name") if isinstance(value, Mapping) else value
