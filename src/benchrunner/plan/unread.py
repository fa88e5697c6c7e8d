"""Overrides where they mean something: what a cell does not read is left out of it, as long as another cell reads it.

`-m strategy=single,ddp devices=2` runs `single` on one device. Which cells do not read a key is said by the rules of
conf/compat.yaml with `unread`. What no cell reads, and the command line says, is left for its rule to refuse.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import yaml

from benchrunner.core.axes import AXES
from benchrunner.core.cell import Cell, derive_sizes, format_value, identity_overrides
from benchrunner.core.errors import ConfigError
from benchrunner.core.paths import config_dir
from benchrunner.core.schema import SECTIONS, typed_section
from benchrunner.machine.hardware import Hardware, usable_devices
from benchrunner.plan.formula_2023 import NAME
from benchrunner.plan.rules import Rule

if TYPE_CHECKING:
    from benchrunner.config.hydra_app import Expansion
    from benchrunner.config.matrix import Row

Section = Callable[[str, str], Mapping[str, Any]]
"""(group, option) → its section as the option file alone has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadRow:
    """A row without what it does not read."""

    row: "Row"
    left_out: tuple[str, ...] = ()
    """As overrides: `devices=2`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadRows:
    """The rows of a plan, each cell once."""

    rows: list[ReadRow]
    notes: list[str]
    """What a reader must know: what has no effect at all, and how many combinations are the same cell."""


def leave_out_unread(expansion: "Expansion", hardware: Hardware, rules: Iterable[Rule]) -> ReadRows:
    """Every row without the overrides that it does not read; rows that become the same cell are one.

    Args:
        expansion: the composed rows; those that `sweep.exclude` struck out stay as they are.
        hardware: the machine that is planned for.
        rules: those with `unread` count.

    Raises:
        ConfigError: the command line asks something of predictions, and no cell's prediction takes it up.
    """
    asked = _Unread(hardware, [rule for rule in rules if rule.unread], usual_options())
    unread = [{} if row.excluded_reason else asked.of(row) for row in expansion.rows]
    is_read = asked.read_by_some(expansion.rows, {key for found in unread for key in found})
    restore = _Restore(expansion.untouched, asked.options)
    read = [
        restore.row(row, [key for key, rule in found.items() if rule.is_silent or _may_go(key, is_read, expansion)])
        for row, found in zip(expansion.rows, unread, strict=True)
    ]
    _refuse_unanswered(read, {key for key in expansion.stated if key not in is_read})
    kept = _each_once(read)
    return ReadRows(rows=kept, notes=[*_without_effect(read, is_read), *_merged(len(read) - len(kept))])


def _may_go(key: str, is_read: Collection[str], expansion: "Expansion") -> bool:
    """Another cell reads it, or it was not said on the command line but is how the sweep is written."""
    return key in is_read or key not in expansion.stated


def usual_options() -> dict[str, str]:
    """Group → the option that a bare `bench` means."""
    entries = yaml.safe_load((config_dir() / "config.yaml").read_text(encoding="utf-8"))["defaults"]
    return {group: name for entry in entries if isinstance(entry, dict) for group, name in entry.items()}


@dataclass(slots=True)
class _Unread:
    """Asks the rules what a row reads."""

    hardware: Hardware
    rules: Sequence[Rule]
    options: Mapping[str, str]
    """Group → the usual option, which says nothing."""
    keys: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        self.keys = frozenset(key for rule in self.rules for key in rule.unread)

    def of(self, row: "Row") -> dict[str, Rule]:
        """Key → the rule by which the row does not read what it says there."""
        said = self._said_by(row)
        if not said:
            return {}
        cell = _provisional(row, usable_devices(self.hardware))
        fitting = [one for one in self.rules if not said.isdisjoint(one.unread) and one.matches(cell, self.hardware)]
        return {key: rule for rule in fitting for key in rule.unread if key in said}

    def read_by_some(self, rows: Iterable["Row"], keys: set[str]) -> set[str]:
        """Those of the keys that the options of some row read, whether or not it says them."""
        is_read: set[str] = set()
        about = [rule for rule in self.rules if not keys.isdisjoint(rule.unread)]
        for row in rows:
            if is_read == keys:
                break
            cell = _provisional(row, usable_devices(self.hardware))
            deaf = {key for rule in about if _is_deaf(rule, cell, self.hardware) for key in rule.unread}
            is_read |= keys - deaf
        return is_read

    def _said_by(self, row: "Row") -> set[str]:
        """Those of the keys that the row changed: leaves, and options other than the usual ones."""
        options = {group for group in self.keys & set(AXES) if row.axes[group] != self.options[group]}
        return {*(self.keys & row.overrides.keys()), *options}


def _is_deaf(rule: Rule, cell: Cell, hardware: Hardware) -> bool:
    """Whether the options of the cell do not read what the rule is about, whatever that is set to."""
    options = [condition for condition in rule.conditions if condition.key in AXES and condition.key not in rule.unread]
    if not options:
        return rule.matches(cell, hardware)
    return all(condition.holds(cell, hardware) for condition in options)


def _provisional(row: "Row", visible: int) -> Cell:
    """The row as rules ask about it; it has no name yet."""
    sizes = derive_sizes(row.config, visible)
    return Cell(
        cell_id="", config_digest="", slug="", axes=row.axes, overrides=row.overrides, config=row.config, sizes=sizes
    )


class _Restore:
    """Gives keys their usual values back; sections that rows share stay shared."""

    def __init__(self, usual: Section, options: Mapping[str, str]) -> None:
        self._usual, self._options = usual, options
        self._sections: dict[tuple[int, str], tuple[Any, Any]] = {}

    def row(self, row: "Row", keys: Sequence[str]) -> ReadRow:
        """The row without these."""
        if not keys:
            return ReadRow(row=row)
        axes, overrides, config = dict(row.axes), dict(row.overrides), row.config
        left_out = [f"{key}={row.axes[key] if key in AXES else format_value(row.overrides[key])}" for key in keys]
        for key in keys:
            if key in AXES:
                axes[key] = self._options[key]
                overrides = {name: value for name, value in overrides.items() if not name.startswith(f"{key}.")}
            overrides.pop(key, None)
            config = replace(config, **{key.partition(".")[0]: self._value(key, config)})
        changed = replace(row, axes=axes, overrides=overrides, config=config)
        return ReadRow(row=changed, left_out=tuple(left_out))

    def _value(self, key: str, config: Any) -> Any:
        """What the top-level part of `key` is without it."""
        section, _, leaf = key.partition(".")
        before = getattr(config, section)
        if section not in SECTIONS:
            return type(config).__dataclass_fields__[section].default
        memo = (id(before) if leaf else 0, key)
        if memo not in self._sections:
            name = getattr(before, "name", "") if leaf else self._options[key]
            usual = typed_section(section, self._usual(section, name))
            self._sections[memo] = before, replace(before, **{leaf: getattr(usual, leaf)}) if leaf else usual
        return self._sections[memo][1]


def _refuse_unanswered(read: Sequence[ReadRow], vain: Collection[str]) -> None:
    """A question about predictions is not left out like a setting: the answer to another one would stand there."""
    for one in read:
        for word in one.left_out:
            key, name = word.partition("=")[0], one.row.config.predict.name
            if key in vain and key.startswith("predict."):
                known = "predict=off predicts nothing" if name == "off" else f"it is of predict.formula={NAME} alone"
                way = "predict=analytic predicts" if name == "off" else "add that"
                raise ConfigError(key, f"no prediction takes up {word}: {known}; {way}, or leave it out")


# --- each cell once ------------------------------------------------------------------------------------------------


def _each_once(read: Sequence[ReadRow]) -> list[ReadRow]:
    """All rows that nothing was left out of, and of the others those that are no cell that is there."""
    seen = {_cell_of(one.row) for one in read if not one.left_out}
    kept = []
    for one in read:
        if not one.left_out:
            kept.append(one)
        elif (cell := _cell_of(one.row)) not in seen:
            seen.add(cell)
            kept.append(one)
    return kept


def _cell_of(row: "Row") -> tuple[object, ...]:
    """What tells the cell from others; `devices=1` says of one device what is so anyway."""
    said = identity_overrides(row.overrides)
    if row.config.strategy.kind == "single":
        said = {key: value for key, value in said.items() if (key, value) not in (("devices", 1), ("nodes", 1))}
    return (*row.axes.values(), repr(sorted(said.items())))


def _without_effect(read: Sequence[ReadRow], is_read: Collection[str]) -> list[str]:
    words = Counter(word for one in read for word in one.left_out if word.partition("=")[0] not in is_read)
    return [f"{', '.join(words)}: no cell reads this, so it is left out"] if words else []


def _merged(count: int) -> list[str]:
    combinations = "1 combination is" if count == 1 else f"{count} combinations are"
    return [f"{combinations} the same as another, without overrides that it does not read"] if count else []
