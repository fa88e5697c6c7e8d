"""Which of a cell's values make it fail: usual ones, and those of a cell that works, take their places one after the
other, and stay there as long as it fails in the same way."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

from benchrunner.core.axes import NOT_IDENTITY
from benchrunner.core.cell import Cell, format_value, identity_overrides

Values = Mapping[str, tuple[str, ...]]
"""Axis or setting → the overrides that choose it: an option stays together with what is changed inside of it."""

Ask = Callable[[Sequence[str]], str]
"""Overrides → how a cell with them ends: its reason code, or `ok`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A cell that was tried."""

    replaced: str
    """The axis or setting that was another one, beside those that had been replaced before."""
    by: tuple[str, ...]
    """Its overrides; none: as it is by default."""
    code: str
    is_same: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Isolation:
    """The smallest combination that was found to fail in the same way."""

    needed: list[str]
    """The overrides that it takes: without any one of them the failure is gone, or another one."""
    overrides: list[str]
    """The cell with those, and everything else as it was replaced."""
    trials: list[Trial] = field(default_factory=list)


def values_of(cell: Cell) -> dict[str, tuple[str, ...]]:
    """The values that tell a cell from others."""
    found: dict[str, tuple[str, ...]] = {axis: (f"{axis}={name}",) for axis, name in cell.axes.items()}
    for key, value in identity_overrides(cell.overrides).items():
        name = key.partition(".")[0]
        found[name] = (*found.get(name, ()), f"{key}={format_value(value)}")
    return found


def settings_of_the_run(cell: Cell) -> list[str]:
    """The overrides of how a cell is measured and judged: every trial has them. It runs here, wherever the cell did."""
    kept = {key: value for key, value in cell.overrides.items() if key.partition(".")[0] in NOT_IDENTITY - ELSEWHERE}
    return [f"{key}={format_value(value)}" for key, value in kept.items()]


ELSEWHERE = frozenset({"launcher", "out_dir", "repeats"})


def differing(failing: Values, working: Values) -> list[str]:
    """The axes and settings in which two cells differ."""
    return [name for name in dict.fromkeys([*failing, *working]) if failing.get(name) != working.get(name)]


def isolate(failing: Values, others: Sequence[Values], code: str, ask: Ask) -> Isolation:
    """Replace one value after the other, as long as the failure does not become another one.

    A value that is needed among others is taken to be needed among fewer: each is asked about once.

    Args:
        failing: what fails with the reason `code`.
        others: cells whose values are put in; the first says what is usual, and needs no mention.
        ask: runs a cell.
    """
    current, needed = dict(failing), differing(failing, others[0])
    trials: list[Trial] = []
    for name, other in product(list(needed), others):
        candidate = {**current, name: other.get(name, ())}
        is_asked = any((one.replaced, one.by) == (name, candidate[name]) for one in trials)
        if name not in needed or is_asked or candidate[name] == current.get(name):
            continue
        found = ask(overrides_of(candidate))
        trials.append(Trial(replaced=name, by=candidate[name], code=found, is_same=found == code))
        if found == code:
            current = candidate
            needed.remove(name)
    return Isolation(
        needed=[word for name in needed for word in failing.get(name, ())],
        overrides=overrides_of(current),
        trials=trials,
    )


def overrides_of(values: Values) -> list[str]:
    """All of them."""
    return [word for words in values.values() for word in words]
