"""The verdict on a job that the runner ended: which limit had passed, and where every rank stood."""

from collections.abc import Callable

from benchrunner.core.text import first_line
from benchrunner.outcome.agent_ends import judge_silence
from benchrunner.outcome.evidence import Evidence, Stop, stack
from benchrunner.outcome.grounds import describe
from benchrunner.outcome.laggard import laggard
from benchrunner.outcome.outcome import Outcome


def _judge_timeout(evidence: Evidence) -> Outcome:
    rank, phase = laggard(evidence)
    assert evidence.stop is not None
    others = ", ".join(_stood(evidence, other) for other in range(evidence.world_size))
    frames = stack(evidence.tail(rank))
    at = f"; rank {rank} was at {first_line(frames[0], 120)}" if frames else ""
    return Outcome(
        status="timeout",
        reason_code=f"timeout.{phase}",
        reason=f"{_overdue(evidence.stop, phase)} ({others}){at}",
        evidence=describe(evidence, rank)
        | {"stacks": {str(other): stack(evidence.tail(other)) for other in range(evidence.world_size)}},
    )


def _overdue(stop: Stop, phase: str) -> str:
    if stop.phase is None:
        return f"stopped after {stop.limit_s:g} s (timeout_s) in phase {phase}"
    return f"no progress for {stop.limit_s:g} s in phase {phase} (limits.{stop.phase}_s)"


def _stood(evidence: Evidence, rank: int) -> str:
    beats = evidence.beats.get(rank)
    return f"rank {rank} in {evidence.phase(rank)}" + (f" after {beats} steps" if beats else "")


def _judge_interrupted(evidence: Evidence) -> Outcome:
    return Outcome(
        status="skipped",
        reason_code="skipped.interrupted",
        reason=f"interrupted while it ran, in phase {laggard(evidence)[1]}",
    )


def _judge_over_budget(evidence: Evidence) -> Outcome:
    return Outcome(
        status="skipped",
        reason_code="skipped.budget",
        reason=f"ended while it ran, in phase {laggard(evidence)[1]}, because the budget was over",
    )


STOPS: dict[str, Callable[[Evidence], Outcome]] = {
    "timeout": _judge_timeout,
    "interrupted": _judge_interrupted,
    "budget": _judge_over_budget,
    "stuck": judge_silence,
}
"""Kind of stop → the verdict when no rank accuses itself."""
