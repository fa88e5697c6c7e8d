"""All cells of a comparison decided together: one noise, one correction, and the same test where nothing changed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchrunner.compare.effect import ALPHA, Decision, Effect, effect_between, effect_of_pairs
from benchrunner.compare.noise import Group, Noise, estimate_noise

DIFFERENT = ("slower", "faster")


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """One cell."""

    effect: Effect
    alpha: float
    """Corrected for the number of tests."""
    decision: Decision
    doubt: str | None = None
    """Why a difference that the test finds is not believed: it finds such differences within one side, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decisions:
    """All cells."""

    noise: Noise | None
    """None where no cell was measured twice on one side: then nothing is decided."""
    cells: Mapping[str, Decided]
    num_alarms: int = 0
    """Of the same test between the halves of each side, where nothing has changed."""
    num_alarm_tests: int = 0


def decide(cells: Mapping[str, Sequence[Group]], min_effect: float) -> Decisions:
    """Decide about cells, each with the groups of its two sides: base, new."""
    noise = estimate_noise(list(cells.values()))
    if noise is None:
        return Decisions(noise=None, cells={})
    alpha = ALPHA / len(cells)
    alarms = _rehearse(cells, noise, min_effect, alpha)
    num_alarms, num_tests = sum(map(sum, alarms.values())), sum(map(len, alarms.values()))
    found = {}
    for name, (base, new) in cells.items():
        effect = effect_between(base, new, noise)
        decision = effect.decide(min_effect, alpha)
        doubt = _doubt(sum(alarms[name]), num_alarms, num_tests) if decision in DIFFERENT else None
        found[name] = Decided(
            effect=effect,
            alpha=alpha,
            decision="undecided" if doubt else decision,
            doubt=doubt and f"{decision}: {doubt}",
        )
    return Decisions(noise=noise, cells=found, num_alarms=num_alarms, num_alarm_tests=num_tests)


def decide_pairs(differences: Mapping[str, Group], min_effect: float, num_looks: int) -> Decisions:
    """Decide about cells by alternated pairs, each new − base; the correction is for every look at them, too."""
    noise = estimate_noise([[group] for group in differences.values()])
    if noise is None:
        return Decisions(noise=None, cells={})
    alpha = ALPHA / (len(differences) * num_looks)
    effects = {name: effect_of_pairs(group, noise) for name, group in differences.items() if group}
    found = {
        name: Decided(effect=effect, alpha=alpha, decision=effect.decide(min_effect, alpha))
        for name, effect in effects.items()
    }
    return Decisions(noise=noise, cells=found)


def _rehearse(
    cells: Mapping[str, Sequence[Group]], noise: Noise, min_effect: float, alpha: float
) -> dict[str, list[bool]]:
    """The same test where nothing has changed: between the earlier and the later processes of each side.

    Cell → of each side that can be halved, whether the test calls its halves different. Its noise is that within
    halves, as that of a comparison is that within sides; where halves are single processes, the comparison's own.
    """
    halved = {name: [_halves(group) for group in groups if len(group) > 1] for name, groups in cells.items()}
    noise = estimate_noise([pair for pairs in halved.values() for pair in pairs]) or noise
    return {
        name: [effect_between(*pair, noise).decide(min_effect, alpha) in DIFFERENT for pair in pairs]
        for name, pairs in halved.items()
    }


def _halves(group: Group) -> tuple[Group, Group]:
    """The middle one of an odd number is in neither."""
    size = len(group) // 2
    return group[:size], group[len(group) - size :]


def _doubt(num_own: int, num_alarms: int, num_tests: int) -> str | None:
    where = "of this cell" if num_own else f"in {num_alarms} of {num_tests} cases"
    if not num_own and num_alarms <= ALPHA * num_tests:
        return None
    return f"but the halves of one side {where} differ as much, so something drifted (--confirm alternates)"
