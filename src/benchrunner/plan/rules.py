"""The rules of conf/compat.yaml: which combinations cannot work on a machine, and why, decided before launch.

The pattern language is described at the top of that file.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from benchrunner.core.axes import AXES
from benchrunner.core.cell import Cell
from benchrunner.core.errors import ConfigError
from benchrunner.core.patterns import as_text, read_pattern
from benchrunner.machine.hardware import Hardware
from benchrunner.plan.facts import Lookup, check_key, look_up, lookup_of

_PLACEHOLDER = re.compile(r"\{([a-z0-9_.]+)\}")


@dataclass(frozen=True, slots=True)
class Condition:
    """One key of a rule's `match` and what its value must look like; verdicts by value are remembered."""

    key: str
    value_of: Lookup
    fits: Callable[[Any], bool]
    seen: dict[Any, bool] = field(default_factory=dict, compare=False)

    def holds(self, cell: Cell, hardware: Hardware) -> bool:
        """Whether the cell's value at `key` fits the pattern."""
        value = self.value_of(cell, hardware)
        known = self.seen.get(value)
        if known is None:
            known = self.seen[value] = self.fits(value)
        return known


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A claim that a combination cannot work."""

    id: str
    code: str
    """The reason code of the verdict: `rule.<id>` unless the rule names another (`missing.bitsandbytes`)."""
    conditions: tuple[Condition, ...]
    """All must hold; axes first, since they are cheapest to look up."""
    reason: str
    """One sentence, with {placeholders}."""
    evidence: str
    """Where the claim comes from, so that it can be checked again when the stack changes."""
    unread: tuple[str, ...] = ()
    """Keys that a cell of this kind does not read (see `plan/unread.py`)."""

    @property
    def is_silent(self) -> bool:
        """Whether the rule only says what is not read, and rules nothing out."""
        return not self.reason

    def matches(self, cell: Cell, hardware: Hardware) -> bool:
        """Whether this rule rules the cell out on that machine."""
        return all(condition.holds(cell, hardware) for condition in self.conditions)

    def fits_axes(self, cell: Cell, hardware: Hardware) -> bool:
        """Whether the conditions on option names hold."""
        return all(condition.holds(cell, hardware) for condition in self.conditions if condition.key in AXES)


@dataclass(frozen=True, slots=True)
class Ruling:
    """A rule that applies to a cell on a machine."""

    rule: Rule
    hardware: Hardware

    @property
    def id(self) -> str:
        """The rule's id."""
        return self.rule.id

    @property
    def code(self) -> str:
        """The reason code."""
        return self.rule.code

    @property
    def evidence(self) -> str:
        """Where the rule's claim comes from."""
        return self.rule.evidence

    def reason_for(self, cell: Cell) -> str:
        """The rule's sentence with this cell's numbers in it."""
        return _PLACEHOLDER.sub(lambda hit: as_text(look_up(hit[1], cell, self.hardware)), self.rule.reason)


class Rules(list[Rule]):
    """Rules in order, which remember the ones whose axes fit: a large matrix asks for the same options again."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        super().__init__(rules)
        self._by_options: dict[tuple[str, ...], list[Rule]] = {}

    def candidates(self, cell: Cell, hardware: Hardware) -> list[Rule]:
        """The rules that the cell's option names leave open."""
        options = tuple(cell.axes.values())
        found = self._by_options.get(options)
        if found is None:
            found = [rule for rule in self if not rule.is_silent and rule.fits_axes(cell, hardware)]
            self._by_options[options] = found
        return found


def find_rule(cell: Cell, hardware: Hardware, rules: Sequence[Rule]) -> Ruling | None:
    """The first rule that rules the cell out on that machine; None when the cell may run."""
    candidates = (
        rules.candidates(cell, hardware) if isinstance(rules, Rules) else [rule for rule in rules if not rule.is_silent]
    )
    for rule in candidates:
        if rule.matches(cell, hardware):
            return Ruling(rule, hardware)
    return None


def load_rules(path: Path) -> Rules:
    """Read and check the rules.

    Raises:
        ConfigError: not YAML, a key that does not exist, a pattern that cannot be read, a missing reason, an id twice.
    """
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8")) or []
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(path.name, f"cannot be read: {error}") from error
    rules = [_read_rule(entry, f"{path.name}[{number}]") for number, entry in enumerate(entries)]
    ids = [rule.id for rule in rules]
    for name in {name for name in ids if ids.count(name) > 1}:
        raise ConfigError(path.name, f"two rules have the id {name}")
    return Rules(rules)


def read_condition(key: str, pattern: Any) -> Condition:
    """The condition on one key, which must be known (`facts.check_key`)."""
    return Condition(key, lookup_of(key), read_pattern(pattern))


def _read_rule(entry: Mapping[str, Any], place: str) -> Rule:
    _check_form(entry, place)
    reason, unread = " ".join(entry.get("reason", "").split()), entry.get("unread", [])
    for key in [*entry["match"], *_PLACEHOLDER.findall(reason), *unread]:
        check_key(key, f"{place} ({entry['id']})")
    conditions = [read_condition(key, pattern) for key, pattern in entry["match"].items()]
    return Rule(
        id=entry["id"],
        code=entry.get("code", f"rule.{entry['id']}"),
        conditions=tuple(sorted(conditions, key=lambda condition: condition.key not in AXES)),
        reason=reason,
        evidence=" ".join(entry.get("evidence", "").split()),
        unread=tuple(unread),
    )


def _check_form(entry: Mapping[str, Any], place: str) -> None:
    """What a rule holds; one that rules nothing out but names what is not read has neither reason nor evidence."""
    needed = {"id", "match", "reason", "evidence"}
    is_whole = needed <= set(entry) or set(entry) == {"id", "match", "unread"}
    if not is_whole or set(entry) - needed - {"code", "unread"} or not entry["match"]:
        raise ConfigError(
            place, f"a rule has id, match, reason, evidence and may have code and unread; got {sorted(entry)}"
        )
    if not isinstance(entry.get("unread", []), list):
        raise ConfigError(place, f"unread is a list of keys, not {entry['unread']!r}")
