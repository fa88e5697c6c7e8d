"""From evidence to verdict: status, reason code and one sentence a reader understands without the log.

The cause is looked for in the ranks' own files first; a rank that only lost its peer comes last, since torchrun ends
every job with code 1 and often blames an innocent rank.
"""

from collections.abc import Callable
from dataclasses import replace

from benchrunner.core.rank_result import Check
from benchrunner.core.text import first_line
from benchrunner.outcome.agent_ends import agent_signal, judge_agent, judge_silence
from benchrunner.outcome.causes import judge_error, judge_exit, judge_garbage, judge_signal, words_of
from benchrunner.outcome.evidence import Evidence
from benchrunner.outcome.grounds import describe, place_of_file
from benchrunner.outcome.outcome import Outcome, Reasoned
from benchrunner.outcome.signatures import infrastructure
from benchrunner.outcome.stops import STOPS
from benchrunner.outcome.suspects import Suspect, find_suspects, priority


def judge(evidence: Evidence) -> Outcome:
    """The verdict on an attempt. Unknown is `failed`, never `oom`."""
    if evidence.is_complete():
        return _judge_results(evidence)
    outcome = _judge_death(evidence)
    outcome = _excuse(evidence, outcome) if outcome.status == "failed" else outcome
    outcome = replace(outcome, reason="; ".join([str(outcome.reason), *evidence.damaged]))
    return _judge_unchecked(evidence, outcome) if _died_checking(evidence, outcome) else outcome


def _judge_death(evidence: Evidence) -> Outcome:
    suspects = sorted(find_suspects(evidence), key=priority)
    if suspects and not suspects[0].is_collateral:
        return _accuse(evidence, suspects[0])
    if evidence.stop is not None:
        return STOPS[evidence.stop.kind](evidence)
    if signum := agent_signal(evidence.code):
        return judge_agent(evidence, signum)
    if suspects:
        return _accuse(evidence, suspects[0])
    return judge_silence(evidence)


def _excuse(evidence: Evidence, outcome: Outcome) -> Outcome:
    """A failure whose cause is the machine and not the cell is `failed.infrastructure`."""
    rank = outcome.evidence.get("rank") if outcome.evidence else None
    status = evidence.ranks.get(rank) if rank is not None else None
    if status is not None and status.error is not None:
        text = words_of(status.error)
    else:
        text = "\n".join(evidence.tails.get("agent.log", ()) if rank is None else evidence.tail(rank))
    if (found := infrastructure(text)) is None:
        return outcome
    return replace(
        outcome,
        reason_code="failed.infrastructure",
        reason=f"{found[1]}, which is not the cell's doing: {outcome.reason}",
        evidence={**(outcome.evidence or {}), "infrastructure": found[0]},
    )


# --- who did it ----------------------------------------------------------------------------------------------------


def _accuse(evidence: Evidence, suspect: Suspect) -> Outcome:
    judges: dict[str, Callable[[Evidence, Suspect], Reasoned]] = {
        "error": judge_error,
        "signal": judge_signal,
        "exit": judge_exit,
        "garbage": judge_garbage,
    }
    status, code, reason = judges[suspect.kind](evidence, suspect)
    return Outcome(status=status, reason_code=code, reason=reason, evidence=describe(evidence, suspect.rank))


# --- the end was reached -------------------------------------------------------------------------------------------


def _judge_results(evidence: Evidence) -> Outcome:
    """`ok`, or `invalid` when a check says that the cell is not what its label says."""
    for rank in sorted(evidence.ranks):
        result = evidence.ranks[rank].result or {}
        for name, check in result.get("checks", {}).items():
            if check["ok"] is False:
                return _invalid(evidence, rank, name, check)
    return Outcome(status="ok")


def _died_checking(evidence: Evidence, outcome: Outcome) -> bool:
    """Whether the cell was measured and met its end in a check. What is not finite is a finding, and no such end."""
    in_check = any(status.phase == "check" for status in evidence.ranks.values())
    by_itself = outcome.status != "skipped" and outcome.reason_code != "failed.nonfinite"
    return evidence.is_measured() and in_check and by_itself


def _judge_unchecked(evidence: Evidence, death: Outcome) -> Outcome:
    """What the checks had found by then stands; that the others said nothing is for the record's flags."""
    found = _judge_results(evidence)
    if found.status != "ok":
        return found
    return Outcome(status="ok", reason=f"measured, but not checked to the end: {death.reason}", evidence=death.evidence)


def _invalid(evidence: Evidence, rank: int, name: str, check: Check) -> Outcome:
    expected, observed = (first_line(str(said), 100) for said in (check.get("expected"), check.get("observed")))
    return Outcome(
        status="invalid",
        reason_code=f"validity.{name}",
        reason=f"check {name} failed: expected {expected}, observed {observed}",
        evidence={"rank": rank, "file": place_of_file(evidence, f"rank{rank}.json"), "lines": [], "check": check},
    )
