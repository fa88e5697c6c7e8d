"""From evidence to verdict: status, reason code and one sentence a reader understands without the log.

The cause is looked for in the ranks' own files first; a rank that only lost its peer comes last, since torchrun ends
every job with code 1 and often blames an innocent rank.
"""

import os
import re
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from benchrunner.core.peer_loss import is_peer_loss
from benchrunner.core.rank_result import Check, MemoryAtDeath, RankError
from benchrunner.core.record import PHASES, Grounds, Phase, RankEnd, Status
from benchrunner.core.text import first_line, plain
from benchrunner.core.units import GIB
from benchrunner.outcome.evidence import Evidence, Stop, stack
from benchrunner.outcome.signatures import (
    HOST_OOM,
    NO_SPACE,
    disguised_oom,
    infrastructure,
    last_meaningful_line,
    refusal,
)

EVIDENCE_LINES = 12

Reasoned = tuple[Status, str, str]
"""Status, reason code and sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A verdict."""

    status: Status
    reason_code: str | None = None
    reason: str | None = None
    flags: list[str] = field(default_factory=list)
    evidence: Grounds | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspect:
    """A rank that did not reach its end, and how it ended."""

    rank: int
    kind: str
    """error | signal | exit | garbage"""
    number: int = 0
    """Signal or exit code."""
    error: RankError | None = None
    is_collateral: bool = False
    """It only lost its peer, or was told to stop."""


def judge(evidence: Evidence) -> Outcome:
    """The verdict on an attempt. Unknown is `failed`, never `oom`."""
    if evidence.is_complete():
        return _judge_results(evidence)
    outcome = _judge_death(evidence)
    outcome = _excuse(evidence, outcome) if outcome.status == "failed" else outcome
    outcome = replace(outcome, reason="; ".join([str(outcome.reason), *evidence.damaged]))
    return _judge_unchecked(evidence, outcome) if _died_checking(evidence, outcome) else outcome


def _judge_death(evidence: Evidence) -> Outcome:
    suspects = sorted(find_suspects(evidence), key=_priority)
    if suspects and not suspects[0].is_collateral:
        return _accuse(evidence, suspects[0])
    if evidence.stop is not None:
        return STOPS[evidence.stop.kind](evidence)
    if signum := _agent_signal(evidence.code):
        return _judge_agent(evidence, signum)
    if suspects:
        return _accuse(evidence, suspects[0])
    return _judge_silence(evidence)


def _excuse(evidence: Evidence, outcome: Outcome) -> Outcome:
    """A failure whose cause is the machine and not the cell is `failed.infrastructure`."""
    rank = outcome.evidence.get("rank") if outcome.evidence else None
    status = evidence.ranks.get(rank) if rank is not None else None
    if status is not None and status.error is not None:
        text = _said(status.error)
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


def find_suspects(evidence: Evidence) -> list[Suspect]:
    """Every rank that ended before its end, with how: its own word, else its exit code, else its file's state."""
    found = (_suspect(evidence, rank) for rank in range(evidence.world_size))
    return [suspect for suspect in found if suspect is not None]


ENDINGS = (signal.SIGKILL, signal.SIGABRT)
"""What becomes of a rank that is told to stop and does not, or whose libraries abort; a crash is its own."""


def _suspect(evidence: Evidence, rank: int) -> Suspect | None:
    status, code = evidence.ranks.get(rank), evidence.exits.get(rank)
    if status is not None and status.error is not None:
        lost_peer = status.error["kind"] == "exception" and is_peer_loss(status.error["message"])
        return Suspect(rank=rank, kind="error", error=status.error, is_collateral=lost_peer)
    if rank in evidence.unreadable:
        return Suspect(rank=rank, kind="garbage")
    if code is not None and code < 0:
        ended = code == -signal.SIGTERM or (rank in evidence.told_to_stop and -code in ENDINGS)
        aborted = code == -signal.SIGABRT and is_peer_loss("\n".join(evidence.tail(rank)))
        return Suspect(rank=rank, kind="signal", number=-code, is_collateral=ended or aborted)
    if code is not None or ((status is None or status.state != "done") and _ended_quietly(evidence, rank)):
        return Suspect(rank=rank, kind="exit", number=code or 0, is_collateral=rank in evidence.told_to_stop)
    return None


def _ended_quietly(evidence: Evidence, rank: int) -> bool:
    """Whether the rank ended with code 0: the job did, or others failed and torchrun does not list it with them."""
    listed = bool(evidence.exits) and rank not in evidence.exits
    return evidence.code == 0 or listed or (evidence.stop is not None and rank in evidence.stop.gone)


def _priority(suspect: Suspect) -> tuple[bool, int, float, int]:
    """Innocents last; then what no peer can cause before what one can; then the earliest."""
    deadly = suspect.kind == "signal" and suspect.number != signal.SIGABRT and not suspect.is_collateral
    quiet = suspect.kind == "exit" and suspect.number == 0
    weight = 0 if deadly else 5 if quiet else {"error": 1, "signal": 2, "exit": 3, "garbage": 4}[suspect.kind]
    at = suspect.error.get("at", 0.0) if suspect.error else 0.0
    return suspect.is_collateral, weight, at, suspect.rank


def _accuse(evidence: Evidence, suspect: Suspect) -> Outcome:
    judges: dict[str, Callable[[Evidence, Suspect], Reasoned]] = {
        "error": _judge_error,
        "signal": _judge_signal,
        "exit": _judge_exit,
        "garbage": _judge_garbage,
    }
    status, code, reason = judges[suspect.kind](evidence, suspect)
    return Outcome(status=status, reason_code=code, reason=reason, evidence=describe(evidence, suspect.rank))


# --- what it was ---------------------------------------------------------------------------------------------------


def _judge_error(evidence: Evidence, suspect: Suspect) -> Reasoned:
    error, where = suspect.error, _where(evidence, suspect.rank)
    assert error is not None
    message, text, traceback = error["message"], _said(error), error.get("traceback", "")
    memory = error.get("memory", MemoryAtDeath())
    if error["kind"] == "unsupported":
        return "unsupported", error.get("code") or "runtime.unnamed", first_line(message)
    if error["type"] == "MemoryError" or HOST_OOM.search(text):
        return "oom", "oom.host", f"{where} ran out of host memory: {first_line(message) or 'MemoryError'}"
    if error["kind"] == "oom" or "CUDA error: out of memory" in message:
        return "oom", "oom.device", f"{where} ran out of device memory{_wanted(message)}{_free(memory)}"
    if library := disguised_oom(text, memory):
        return "oom", "oom.disguised", f"{where} met an error of {library} with the device full{_free(memory)}"
    if error["kind"] == "nonfinite":
        return "failed", "failed.nonfinite", f"{where} met a number that is not finite: {first_line(message)}"
    if found := refusal(f"{text}\n{traceback}"):
        return "unsupported", found[0], found[1]
    if NO_SPACE.search(message):
        return "failed", "failed.disk", f"{where} could not write: {first_line(message, 160)}"
    if suspect.is_collateral:
        said = first_line(message, 160)
        return "failed", "failed.peer_loss", f"{where} lost a peer, and no rank left a cause: {said}"
    return (
        "failed",
        "failed.exception",
        f"{where} raised {error['type'].rpartition('.')[2]}: {first_line(message) or 'no message'}",
    )


def _judge_signal(evidence: Evidence, suspect: Suspect) -> Reasoned:
    where, name = _where(evidence, suspect.rank), _signal_name(suspect.number)
    if suspect.number == signal.SIGKILL and evidence.num_oom_kills > 0:
        return "oom", "oom.host", f"{where} was killed by the kernel because the host ran out of memory"
    if suspect.number == signal.SIGXCPU:
        return "failed", "failed.cpu_time", f"{where} was ended by {name}: {CPU_TIME}"
    return "failed", "failed.signal", f"{where} was killed by {name}"


def _judge_exit(evidence: Evidence, suspect: Suspect) -> Reasoned:
    where, last = _where(evidence, suspect.rank), last_meaningful_line(evidence.tail(suspect.rank))
    if suspect.number == os.EX_IOERR:
        return "failed", "failed.disk", f"{where} could not write its status file: the disk is full or read-only"
    said = f"; its last words: {first_line(last, 160)}" if last else ""
    return "failed", "failed.exit", f"{where} exited with code {suspect.number} without reporting an error{said}"


def _judge_garbage(evidence: Evidence, suspect: Suspect) -> Reasoned:
    problem = first_line(evidence.unreadable[suspect.rank], 120)
    return "failed", "failed.garbage", f"rank {suspect.rank} left a status file that cannot be read: {problem}"


def _judge_silence(evidence: Evidence) -> Outcome:
    """No rank accuses itself and nobody stopped the job: the launch itself failed, or nobody knows."""
    agent = evidence.tails.get("agent.log", ())
    last = first_line(last_meaningful_line(agent) or "no line was logged", 160)
    ended = "the job ended" if evidence.code is None else f"the job ended with code {evidence.code}"
    started = "before any rank started" if not evidence.ranks else "and no rank left a cause"
    return Outcome(
        status="failed",
        reason_code="failed.launch" if not evidence.ranks else "failed.unknown",
        reason=f"{ended} {started}; its last line: {last}",
        evidence={"rank": None, "file": _file(evidence, "agent.log"), "lines": list(agent[-EVIDENCE_LINES:])},
    )


CPU_TIME = "it had used the CPU time that it may use (ulimit -t)"

CRASHES = (signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT)


def _agent_signal(code: int | None) -> int | None:
    """The signal that ended the agent: it dies by it, or says 128 and more once it has ended its ranks."""
    if code is None or 0 <= code <= 128:
        return None
    return -code if code < 0 else code - 128


def _judge_agent(evidence: Evidence, signum: int) -> Outcome:
    """The process that leads the ranks was ended by somebody else, and they went with it without a word."""
    phase, lines = laggard(evidence)[1], evidence.tails.get("agent.log", ())
    grounds: Grounds = {
        "rank": None,
        "file": _file(evidence, "agent.log"),
        "lines": list(lines[-EVIDENCE_LINES:]),
        "ranks": [_stand(evidence, rank) for rank in range(evidence.world_size)],
    }
    if signum == signal.SIGKILL and evidence.num_oom_kills > 0:
        reason = f"the kernel killed the agent of the job in phase {phase} because the host ran out of memory"
        return Outcome(
            status="oom", reason_code="oom.host", reason=f"{reason}; its ranks went with it", evidence=grounds
        )
    if signum == signal.SIGXCPU:
        reason = f"the agent of the job was ended by SIGXCPU in phase {phase}: {CPU_TIME}"
        return Outcome(status="failed", reason_code="failed.cpu_time", reason=reason, evidence=grounds)
    how = "crashed with" if signum in CRASHES else "was ended from outside by"
    reason = f"the agent of the job {how} {_signal_name(signum)}, in phase {phase}, and its ranks went with it"
    return Outcome(status="failed", reason_code="failed.agent", reason=reason, evidence=grounds)


# --- stopped by the runner -----------------------------------------------------------------------------------------


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


def laggard(evidence: Evidence) -> tuple[int, Phase]:
    """The rank that holds the others up, and its phase: furthest behind in phases, then in steps, then in no wait."""

    def place(rank: int) -> tuple[int, int, int]:
        return PHASES.index(evidence.phase(rank)), evidence.beats.get(rank, 0), _waits(stack(evidence.tail(rank)))

    rank = min(range(evidence.world_size), key=place)
    return rank, evidence.phase(rank)


def _waits(frames: Sequence[str]) -> int:
    """Whether a rank's stack is one of waiting for others: 2 surely, 1 perhaps (gradients are reduced in it), 0 no."""
    if any("torch/distributed" in frame or "validity/exchange" in frame for frame in frames):
        return 2
    return int(any("in _engine_run_backward" in frame or "torch/cuda/" in frame for frame in frames[:1]))


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
    "stuck": _judge_silence,
}
"""Kind of stop → the verdict when no rank accuses itself."""


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
        evidence={"rank": rank, "file": _file(evidence, f"rank{rank}.json"), "lines": [], "check": check},
    )


# --- texts ---------------------------------------------------------------------------------------------------------


def describe(evidence: Evidence, rank: int) -> Grounds:
    """The evidence block of a record: the root rank's lines, and where every rank stood."""
    error = evidence.ranks[rank].error if rank in evidence.ranks else None
    traceback = error.get("traceback", "") if error else ""
    lines = [line for line in plain(traceback).splitlines() if line.strip()]
    name = f"rank{rank}.json" if lines else f"rank{rank}.err"
    return {
        "rank": rank,
        "file": _file(evidence, name),
        "lines": list(lines or evidence.tail(rank))[-EVIDENCE_LINES:],
        "stdout": list(evidence.tail(rank, "out"))[-EVIDENCE_LINES:],
        "memory": (error.get("memory") if error else None) or None,
        "ranks": [_stand(evidence, other) for other in range(evidence.world_size)],
    }


def _stand(evidence: Evidence, rank: int) -> RankEnd:
    status = evidence.ranks.get(rank)
    return {
        "rank": rank,
        "state": status.state if status else ("unreadable" if rank in evidence.unreadable else "absent"),
        "phase": evidence.phase(rank),
        "phase_started_at": status.phase_started_at if status else None,
        "steps": evidence.beats.get(rank, 0),
        "exit": evidence.exits.get(rank),
        "error": status.error["type"] if status and status.error else None,
    }


def _file(evidence: Evidence, name: str) -> str:
    return f"{evidence.directory}/{name}" if evidence.directory else name


def _where(evidence: Evidence, rank: int) -> str:
    return f"rank {rank}, in phase {evidence.phase(rank)},"


def _said(error: RankError) -> str:
    return f"{error['type']}: {error['message']}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _wanted(message: str) -> str:
    found = re.search(r"Tried to allocate ([\d.]+ [KMGT]?i?B)", message)
    return f" when it asked for {found[1]}" if found else ""


def _free(memory: MemoryAtDeath) -> str:
    if cap := memory.get("cap_bytes"):
        held = [(memory.get("allocated_bytes") or 0) / GIB, (memory.get("reserved_bytes") or 0) / GIB]
        return (
            f" ({held[0]:.1f} GiB were allocated and {held[1]:.1f} GiB reserved "
            f"of the {cap / GIB:.1f} GiB that memory_limit_gib leaves)"
        )
    free, total = memory.get("free_bytes"), memory.get("total_bytes")
    if free is None or not total:
        return ""
    return f" ({free / GIB:.1f} of {total / GIB:.1f} GiB were free)"
