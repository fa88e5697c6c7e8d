"""The verdict on a job that no rank accuses itself of: its agent was ended, or nobody says anything."""

import signal

from benchrunner.core.record import Grounds
from benchrunner.core.text import first_line
from benchrunner.outcome.evidence import Evidence
from benchrunner.outcome.grounds import EVIDENCE_LINES, place_of_file, stand_of
from benchrunner.outcome.laggard import laggard
from benchrunner.outcome.outcome import Outcome
from benchrunner.outcome.signatures import (
    last_meaningful_line,
)


def judge_silence(evidence: Evidence) -> Outcome:
    """No rank accuses itself and nobody stopped the job: the launch itself failed, or nobody knows."""
    agent = evidence.tails.get("agent.log", ())
    last = first_line(last_meaningful_line(agent) or "no line was logged", 160)
    ended = "the job ended" if evidence.code is None else f"the job ended with code {evidence.code}"
    started = "before any rank started" if not evidence.ranks else "and no rank left a cause"
    return Outcome(
        status="failed",
        reason_code="failed.launch" if not evidence.ranks else "failed.unknown",
        reason=f"{ended} {started}; its last line: {last}",
        evidence={"rank": None, "file": place_of_file(evidence, "agent.log"), "lines": list(agent[-EVIDENCE_LINES:])},
    )


CPU_TIME = "it had used the CPU time that it may use (ulimit -t)"


CRASHES = (signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT)


def agent_signal(code: int | None) -> int | None:
    """The signal that ended the agent: it dies by it, or says 128 and more once it has ended its ranks."""
    if code is None or 0 <= code <= 128:
        return None
    return -code if code < 0 else code - 128


def judge_agent(evidence: Evidence, signum: int) -> Outcome:
    """The process that leads the ranks was ended by somebody else, and they went with it without a word."""
    phase, lines = laggard(evidence)[1], evidence.tails.get("agent.log", ())
    grounds: Grounds = {
        "rank": None,
        "file": place_of_file(evidence, "agent.log"),
        "lines": list(lines[-EVIDENCE_LINES:]),
        "ranks": [stand_of(evidence, rank) for rank in range(evidence.world_size)],
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
    reason = f"the agent of the job {how} {signal_name(signum)}, in phase {phase}, and its ranks went with it"
    return Outcome(status="failed", reason_code="failed.agent", reason=reason, evidence=grounds)


def signal_name(number: int) -> str:
    """As people write it."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
