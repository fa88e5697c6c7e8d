"""A cell's verdict and evidence as its record: the row of the tables."""

import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from benchrunner.core.cell import Cell
from benchrunner.core.checks import num_decided, undecided
from benchrunner.core.environment import Environment
from benchrunner.core.faults import VARIABLE
from benchrunner.core.job_file import Machine
from benchrunner.core.rank_file import RankFile
from benchrunner.core.rank_result import Check, Checks, RankError, RankResult
from benchrunner.core.record import PHASES, EarlierAttempt, Metrics, RankRow, Record
from benchrunner.outcome import metrics
from benchrunner.outcome.evidence import Evidence
from benchrunner.outcome.outcome import Outcome
from benchrunner.plan.plan import PlannedCell


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """What the runner knows about an attempt beside its evidence."""

    number: int = 0
    """0: never launched."""
    started_at: str | None = None
    wall_s: float | None = None
    devices: Sequence[int] = ()
    beside: Sequence[str] = ()
    """Slugs of the cells that ran at the same time."""
    fault: str | None = None
    hardware: Machine | None = None
    environment: Environment = field(default_factory=Environment)
    """What is known of the attempt itself; the sweep's own environment is added by the ledger."""
    flags: Sequence[str] = ()
    earlier: Sequence[EarlierAttempt] = ()
    """What became of the attempts before."""


NO_ATTEMPT = Attempt()


def make_record(
    planned: PlannedCell, outcome: Outcome, evidence: Evidence | None = None, attempt: Attempt = NO_ATTEMPT
) -> Record:
    """The row of a cell. Its headline numbers are there when every rank's measurement is complete and was judged."""
    cell = planned.cell
    results = [status.result for _, status in sorted(evidence.ranks.items()) if status.result] if evidence else []
    is_judged = evidence is not None and (evidence.is_complete() or outcome.status in ("ok", "invalid"))
    complete = results if is_judged else []
    first = complete[0] if complete else RankResult()
    checks = _merge_checks(complete)
    flags = [*planned.flags, *outcome.flags, *attempt.flags, *(_flags(cell, complete, checks) if complete else [])]
    return Record(
        cell_id=cell.cell_id,
        config_digest=cell.config_digest,
        slug=cell.slug,
        axes=dict(cell.axes),
        overrides=dict(cell.overrides),
        sizes=asdict(cell.sizes),
        status=outcome.status,
        reason_code=outcome.reason_code,
        reason=outcome.reason,
        flags=list(dict.fromkeys(flags)),
        evidence=outcome.evidence,
        command=command_of(planned, attempt.fault),
        attempt=attempt.number,
        started_at=attempt.started_at,
        wall_s=attempt.wall_s,
        earlier_attempts=list(attempt.earlier),
        phases_s=_phases_s(evidence),
        num_parameters=first.get("num_parameters"),
        num_trainable_parameters=first.get("num_trainable_parameters"),
        metrics=metrics.headline(cell, complete, attempt.hardware) if complete else Metrics(),
        predicted=dict(planned.predicted) if planned.predicted else None,
        checks=checks,
        num_checks=len(checks) if complete else None,
        num_checks_decided=num_decided(checks) if complete else None,
        ranks=[_rank_row(status) for _, status in sorted(evidence.ranks.items())] if evidence else [],
        environment=attempt.environment,
        devices_used=list(attempt.devices),
        ran_beside=list(attempt.beside),
        fault=attempt.fault,
        repeat=planned.repeat,
    )


def earlier_attempts(before: Record | None, number: int) -> list[EarlierAttempt]:
    """What stands of the attempts before attempt `number`, by the record that it replaces."""
    if before is None or not 0 < before.attempt < number:
        return []
    last = EarlierAttempt(
        attempt=before.attempt, status=before.status, reason_code=before.reason_code, reason=before.reason
    )
    return [*before.earlier_attempts, last]


def command_of(planned: PlannedCell, fault: str | None = None) -> str:
    """The line that repeats the cell when pasted into a shell."""
    line = shlex.join(["bench", *planned.cell.as_overrides()])
    return f"{VARIABLE}={shlex.quote(fault)} {line}" if fault else line


def _phases_s(evidence: Evidence | None) -> dict[str, float]:
    """Seconds by phase, the slowest rank."""
    spent = [status.phases_s for status in evidence.ranks.values()] if evidence else []
    return {
        phase: max(seconds.get(phase, 0.0) for seconds in spent) for phase in PHASES if any(phase in s for s in spent)
    }


def _flags(cell: Cell, results: Sequence[RankResult], checks: Checks) -> list[str]:
    unverified = [f"unverified:{name}" for name in undecided(cell, checks)]
    return [*metrics.flags_of(cell, results), *unverified]


def _merge_checks(results: Sequence[RankResult]) -> Checks:
    """Each check as the first rank on which it failed saw it; else as one that could not tell, or was not asked; else
    as the first rank saw it.
    """
    names = dict.fromkeys(name for result in results for name in result.get("checks", {}))
    return {name: min((_said(result, name) for result in results), key=_weight) for name in names}


def _said(result: RankResult, name: str) -> Check:
    return result.get("checks", {}).get(name, {"ok": None, "note": "a rank ended before it was asked"})


def _weight(check: Check) -> int:
    return {False: 0, None: 1, True: 2}[check["ok"]]


def _rank_row(status: RankFile) -> RankRow:
    return {
        "rank": status.rank,
        "state": status.state,
        "phase": status.phase,
        "phases_s": status.phases_s,
        "error": _without_traceback(status.error),
        **(status.result or {}),
    }


def _without_traceback(error: RankError | None) -> RankError | None:
    if error is None:
        return None
    short: RankError = {**error}
    short.pop("traceback", None)
    return short
