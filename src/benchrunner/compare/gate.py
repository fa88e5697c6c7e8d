"""Two sweeps → PASS, FAIL or INCONCLUSIVE: of each cell that both have, and of all."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean, median
from typing import Literal

from benchrunner.compare.attribution import attribute
from benchrunner.compare.decisions import DIFFERENT, Decided, decide, decide_pairs
from benchrunner.compare.effect import ALPHA, Decision, Effect
from benchrunner.compare.metric import METRICS, Metric
from benchrunner.compare.noise import Group, Noise
from benchrunner.compare.pairing import CellPair, Pairing
from benchrunner.compare.side import MeasuredCell
from benchrunner.compare.suspects import suspects
from benchrunner.plan.expectation import TOLERANCE

Verdict = Literal["PASS", "FAIL", "INCONCLUSIVE"]

MIN_EFFECT = TOLERANCE
"""A difference below this share is of no interest."""

LEAST_FOR_DRIFT = 4
"""Tested cells, for a pattern over them to mean anything."""

INFRASTRUCTURE = "failed.infrastructure"
"""The code of failures that say nothing about the cell."""

ONE_PROCESS = "one process a side says nothing about the spread: repeats=3, bench resume --repeats 3 DIR, or --confirm"

UNSTEADY_FLAGS = frozenset({"unstable", "throttled", "foreign_process"})
"""Of processes whose own steps differed much, or that had not the device to themselves: what disturbed them lasts
longer than one process, and so makes several alike."""

VERDICTS: Mapping[Decision, Verdict] = {
    "slower": "FAIL",
    "faster": "PASS",
    "same": "PASS",
    "undecided": "INCONCLUSIVE",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class GateOptions:
    """What is asked."""

    metric: Metric = METRICS["time"]
    min_effect: float = MIN_EFFECT
    """As a share: 0.03 is 3 %."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CellResult:
    """One cell of both sweeps."""

    pair: CellPair
    verdict: Verdict | None
    """None: neither side has a number, and that has not changed."""
    reason: str
    """In a sentence."""
    change: Decision | None = None
    """None: not tested."""
    base_value: float | None = None
    """Geometric mean of the processes, as the metric is read."""
    new_value: float | None = None
    effect: Effect | None = None
    alpha: float = ALPHA
    """Of this test, corrected."""
    num_pairs: int = 0
    """Alternated pairs that the verdict stands on; 0: the processes of the sweeps themselves."""
    is_doubted: bool = False
    """The test finds a difference, which is not believed."""
    attribution: Sequence[str] = ()
    """What else changed in this cell."""

    @property
    def log_ratio(self) -> float | None:
        """Of what was measured, new ÷ base; None where a side has no number."""
        return math.log(self.new_value / self.base_value) if self.base_value and self.new_value else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What came of it."""

    pairing: Pairing
    options: GateOptions
    cells: list[CellResult]
    noise: Noise | None
    num_alarms: int = 0
    """Between halves of the same side, where nothing has changed."""
    num_alarm_tests: int = 0
    detectable: float | None = None
    """The smallest real slowdown, as a share, that the median cell would show; None where nothing can be said."""
    suspects: Sequence[str] = ()
    """What else differs between the sweeps."""
    notes: Sequence[str] = field(default_factory=list)

    @property
    def verdict(self) -> Verdict:
        """FAIL if any cell is; PASS if some were tested and all pass, and none vanished; else INCONCLUSIVE."""
        verdicts = [cell.verdict for cell in self.cells]
        if "FAIL" in verdicts:
            return "FAIL"
        whole = "PASS" in verdicts and "INCONCLUSIVE" not in verdicts and not self.pairing.vanished
        return "PASS" if whole else "INCONCLUSIVE"


Differences = Mapping[str, Group]
"""Cell id → of each alternated pair, the logarithm of new ÷ base."""


def compare(
    pairing: Pairing,
    options: GateOptions,
    differences: Differences | None = None,
    *,
    num_looks: int = 1,
) -> Comparison:
    """Decide about every cell.

    Args:
        pairing: the cells of both sweeps.
        options: what is compared.
        differences: of cells that were run again in pairs: their verdict stands on the pairs alone.
        num_looks: how often the pairs are looked at in all; the correction is for that, too.
    """
    tested = {pair.cell_id: _groups(pair, options.metric) for pair in pairing.pairs}
    tested = {cell_id: groups for cell_id, groups in tested.items() if all(groups)}
    decisions = decide(tested, options.min_effect)
    confirmed = decide_pairs(differences or {}, options.min_effect, num_looks)
    cells = [
        _judge(pair, tested.get(pair.cell_id), decisions.cells.get(pair.cell_id), options) for pair in pairing.pairs
    ]
    numbers = {cell_id: len(group) for cell_id, group in (differences or {}).items()}
    cells = [_confirmed(cell, confirmed.cells.get(cell.pair.cell_id), numbers, options) for cell in cells]
    cells = [replace(cell, attribution=attribute(cell.pair)) if _is_different(cell) else cell for cell in cells]
    return Comparison(
        pairing=pairing,
        options=options,
        cells=cells,
        noise=decisions.noise,
        num_alarms=decisions.num_alarms,
        num_alarm_tests=decisions.num_alarm_tests,
        detectable=_detectable(cells, options.min_effect),
        suspects=suspects(pairing.base, pairing.new),
        notes=_drift_notes(cells),
    )


def _drift_notes(cells: Sequence[CellResult]) -> list[str]:
    """Regressions without one improvement, in most cells: the fingerprint of a harness or a machine that drifted."""
    effects = [cell.effect.log_ratio for cell in cells if cell.effect and not cell.num_pairs]
    num_slower = sum(cell.change == "slower" and not cell.num_pairs for cell in cells)
    if len(effects) < LEAST_FOR_DRIFT or num_slower <= len(effects) / 2 or min(effects) < 0:
        return []
    return [
        f"{num_slower} of {len(effects)} cells are worse and none is better: one cause for all, or a drift"
        " (--confirm alternates, and so tells them apart)"
    ]


def _groups(pair: CellPair, metric: Metric) -> list[Group]:
    """Logarithms of the processes of both sides; an empty group where a side is not ok or has no number."""
    if pair.obstacle:
        return [[], []]
    sides = (pair.base, pair.new)
    return [[math.log(value) for value in _values(side, metric)] if side.status == "ok" else [] for side in sides]


def _values(cell: MeasuredCell, metric: Metric) -> list[float]:
    return [value for record in cell.records if (value := metric.value(record)) is not None]


# --- a cell ---------------------------------------------------------------------------------------------------------


def _judge(pair: CellPair, groups: Sequence[Group] | None, decided: Decided | None, options: GateOptions) -> CellResult:
    if pair.base.status != "ok" or pair.new.status != "ok":
        return _judge_status(pair)
    if pair.obstacle:
        return CellResult(pair=pair, verdict="INCONCLUSIVE", reason=pair.obstacle)
    if groups is None:
        return CellResult(pair=pair, verdict=None, reason=f"has no {options.metric.name} to compare")
    base_value, new_value = (math.exp(fmean(group)) for group in groups)
    measured = CellResult(
        pair=pair, verdict="INCONCLUSIVE", reason=ONE_PROCESS, base_value=base_value, new_value=new_value
    )
    return _decided(measured, _steady(decided, pair, options.metric), options) if decided else measured


def _steady(decided: Decided, pair: CellPair, metric: Metric) -> Decided:
    """No difference in time is believed where most processes of a side could not measure: see UNSTEADY_FLAGS."""
    sides = [[bool(UNSTEADY_FLAGS & set(record.flags)) for record in side.records] for side in (pair.base, pair.new)]
    num_unsteady, num = max(((sum(side), len(side)) for side in sides), key=lambda count: count[0] / count[1])
    if metric.name != "time" or decided.decision not in DIFFERENT or num_unsteady <= num / 2:
        return decided
    why = f"but {num_unsteady} of {num} processes of a side were disturbed ({' or '.join(sorted(UNSTEADY_FLAGS))})"
    return replace(decided, decision="undecided", doubt=f"{decided.decision}: {why} (--confirm alternates)")


def _decided(cell: CellResult, decided: Decided, options: GateOptions) -> CellResult:
    return replace(
        cell,
        verdict=VERDICTS[decided.decision],
        reason=f"looks {decided.doubt}" if decided.doubt else _said(decided.decision, options),
        change=decided.decision,
        effect=decided.effect,
        alpha=decided.alpha,
        is_doubted=decided.doubt is not None,
    )


def _confirmed(
    cell: CellResult, decided: Decided | None, num_pairs: Mapping[str, int], options: GateOptions
) -> CellResult:
    """The verdict of a cell that was run again stands on its pairs alone: fresh, and free of drift."""
    if decided is None or cell.base_value is None:
        return cell
    return replace(_decided(cell, decided, options), num_pairs=num_pairs[cell.pair.cell_id])


def _said(decision: Decision, options: GateOptions) -> str:
    least = f"{options.min_effect * 100:.3g} %"
    return {
        "slower": f"{options.metric.more} by at least {least}, and not by chance",
        "faster": f"{options.metric.less} by at least {least}, and not by chance",
        "same": f"no difference of {least} or more",
        "undecided": f"a difference of {least} can be neither shown nor excluded",
    }[decision]


def _judge_status(pair: CellPair) -> CellResult:
    """A cell that is not ok on one side at least."""
    before, after = pair.base, pair.new
    said = f"{_status(before)} → {_status(after)}"
    because = f": {after.reason}" if after.status != "ok" else ""
    if not before.is_settled or not after.is_settled or INFRASTRUCTURE in (before.reason_code, after.reason_code):
        return CellResult(pair=pair, verdict="INCONCLUSIVE", reason=f"{said}{because}")
    if before.status == "ok":
        return CellResult(pair=pair, verdict="FAIL", reason=f"works no more: {said}{because}")
    if after.status == "ok":
        return CellResult(pair=pair, verdict="PASS", reason=f"works now: {said}")
    same = (before.status, before.reason_code) == (after.status, after.reason_code)
    return CellResult(pair=pair, verdict=None, reason=_status(after) if same else f"fails differently: {said}{because}")


def _status(cell: MeasuredCell) -> str:
    bad = sum(record.status != "ok" for record in cell.records)
    some = f" in {bad} of {len(cell.records)} processes" if 0 < bad < len(cell.records) else ""
    code = f" ({cell.reason_code})" if cell.reason_code else ""
    return f"{cell.status}{code}{some}"


def to_run_again(found: Comparison, *, undecided: bool) -> list[CellPair]:
    """The cells that would fail the gate by their numbers, or would if they were believed; with `undecided` those that
    are inconclusive or look better, too. Cells without numbers are not among them.
    """
    least = math.log1p(found.options.min_effect)
    chosen = []
    for cell in found.cells:
        ratio = cell.log_ratio
        may_fail = cell.verdict == "FAIL" or cell.is_doubted or (cell.effect is None and (ratio or 0.0) >= least)
        is_open = cell.verdict == "INCONCLUSIVE" or cell.change == "faster"
        if ratio is not None and (may_fail or (undecided and is_open)):
            chosen.append(cell.pair)
    return chosen


def _is_different(cell: CellResult) -> bool:
    return cell.verdict == "FAIL" or cell.change in DIFFERENT or cell.is_doubted


def _detectable(cells: Sequence[CellResult], min_effect: float) -> float | None:
    found = [cell.effect.detectable(min_effect, cell.alpha) for cell in cells if cell.effect]
    return median(found) if found else None
