"""`sweep.expect`: orderings of two cells of a sweep that a mechanism predicts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchrunner.core.cell import Cell
from benchrunner.core.errors import ConfigError, did_you_mean
from benchrunner.core.record import Metrics
from benchrunner.machine.hardware import Hardware
from benchrunner.plan.facts import check_key
from benchrunner.plan.rules import Condition, read_condition

SECTION = "sweep.expect"
SAID = frozenset({"name", "metric", "because"})
TWO_CELLS = SAID | {"less", "more"}
TURN = SAID | {"of", "along", "begins"}
TOLERANCE = 0.03
"""Share by which a difference may be on the wrong side before it counts, here as in `bench compare`: by that much two
runs of one cell differ."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Cells, by what they are: keys and patterns as in conf/compat.yaml."""

    conditions: tuple[Condition, ...]

    def has(self, cell: Cell, hardware: Hardware) -> bool:
        """Whether a cell is among them."""
        return all(condition.holds(cell, hardware) for condition in self.conditions)


@dataclass(frozen=True, slots=True)
class Turn:
    """Where something begins among cells that differ in one key: the first that has it, and the one before."""

    along: str
    """The key that they are ordered by."""
    begins: str
    """The metric that is above zero from then on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """One cell has less of a metric than another."""

    name: str
    less: Selection
    more: Selection
    metric: str
    because: str
    """The mechanism, in a sentence."""
    by: float = TOLERANCE
    turn: Turn | None = None
    """Which two of the cells that both sides select; None: each side selects one."""


def read_expectations(entries: Sequence[Mapping[str, Any]]) -> list[Expectation]:
    """The entries of `sweep.expect`.

    Raises:
        ConfigError: a part is missing, unknown or of another form.
    """
    return [_read(entry, f"{SECTION}[{number}]") for number, entry in enumerate(entries)]


def not_one(number: int) -> str | None:
    """Why a side that means so many cells of a sweep has none to compare; None: it means one."""
    return None if number == 1 else f"{number} cells are meant, not one" if number else "no cell of this sweep is meant"


def vain_expectations(expectations: Sequence[Expectation], cells: Sequence[Cell], hardware: Hardware) -> str | None:
    """A sentence on those that these cells leave unjudged, whatever becomes of them; None where there are none.

    What a search will try is not known yet, so that it may be what is meant.
    """
    vain = [f"{one.name}: {why}" for one in expectations if (why := _in_vain(one, cells, hardware))]
    if not vain:
        return None
    return f"{len(vain)} of {len(expectations)} orderings in {SECTION} will not be judged: {'; '.join(vain)}"


def _in_vain(expectation: Expectation, cells: Sequence[Cell], hardware: Hardware) -> str | None:
    sides = {"of": expectation.less} if expectation.turn else {"less": expectation.less, "more": expectation.more}
    for side, selection in sides.items():
        number = sum(selection.has(cell, hardware) for cell in cells)
        is_open = any(cell.search for cell in cells) if not number else expectation.turn is not None
        if (problem := not_one(number)) and not is_open:
            return f"{problem} ({side})"
    return None


def read_selection(match: Any, place: str) -> Selection:
    """Cells that {key: pattern} describes; `place` is where it is written, for the message.

    Raises:
        ConfigError: no mapping, an empty one, or a key that cells do not have.
    """
    if not isinstance(match, Mapping) or not match:
        raise ConfigError(place, f"{match!r} is not {{key: pattern}}")
    for key in match:
        check_key(str(key), place)
    return Selection(tuple(read_condition(str(key), pattern) for key, pattern in match.items()))


def _read(entry: Mapping[str, Any], place: str) -> Expectation:
    parts = set(entry) - {"by"}
    if parts not in (TWO_CELLS, TURN):
        forms = "name, metric, because, and less and more, or of, along and begins; it may have by"
        raise ConfigError(place, f"has {forms}; got {', '.join(entry)}")
    turn = _read_turn(entry, place) if parts == TURN else None
    less, more = ("of", "of") if turn else ("less", "more")
    return Expectation(
        name=str(entry["name"]),
        less=read_selection(entry[less], f"{place}.{less}"),
        more=read_selection(entry[more], f"{place}.{more}"),
        metric=_read_metric(entry["metric"], place),
        because=" ".join(str(entry["because"]).split()),
        by=_read_share(entry.get("by", TOLERANCE), place),
        turn=turn,
    )


def _read_turn(entry: Mapping[str, Any], place: str) -> Turn:
    check_key(str(entry["along"]), f"{place}.along")
    return Turn(str(entry["along"]), _read_metric(entry["begins"], f"{place}.begins"))


def _read_metric(name: Any, place: str) -> str:
    known = sorted(Metrics.__annotations__)
    if name not in known:
        raise ConfigError(place, f"no metric {name!r}{did_you_mean(str(name), known)}")
    return str(name)


def _read_share(by: Any, place: str) -> float:
    if isinstance(by, bool) or not isinstance(by, (int, float)) or not 0 <= by < 1:
        raise ConfigError(place, f"by is a share of at least 0 and below 1, not {by!r}")
    return float(by)
