"""What a suspected rank died of, told from its own word, its exit code and its file."""

import os
import re
import signal

from benchrunner.core.rank_result import MemoryAtDeath, RankError
from benchrunner.core.text import first_line
from benchrunner.core.units import GIB
from benchrunner.outcome.agent_ends import CPU_TIME, signal_name
from benchrunner.outcome.evidence import Evidence
from benchrunner.outcome.outcome import Reasoned
from benchrunner.outcome.signatures import (
    HOST_OOM,
    NO_SPACE,
    disguised_oom,
    last_meaningful_line,
    refusal,
)
from benchrunner.outcome.suspects import Suspect


def judge_error(evidence: Evidence, suspect: Suspect) -> Reasoned:
    """By the exception that the rank wrote down."""
    error, where = suspect.error, _where(evidence, suspect.rank)
    assert error is not None
    message, text, traceback = error["message"], words_of(error), error.get("traceback", "")
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


def judge_signal(evidence: Evidence, suspect: Suspect) -> Reasoned:
    """By the signal that killed it."""
    where, name = _where(evidence, suspect.rank), signal_name(suspect.number)
    if suspect.number == signal.SIGKILL and evidence.num_oom_kills > 0:
        return "oom", "oom.host", f"{where} was killed by the kernel because the host ran out of memory"
    if suspect.number == signal.SIGXCPU:
        return "failed", "failed.cpu_time", f"{where} was ended by {name}: {CPU_TIME}"
    return "failed", "failed.signal", f"{where} was killed by {name}"


def judge_exit(evidence: Evidence, suspect: Suspect) -> Reasoned:
    """By an exit code alone."""
    where, last = _where(evidence, suspect.rank), last_meaningful_line(evidence.tail(suspect.rank))
    if suspect.number == os.EX_IOERR:
        return "failed", "failed.disk", f"{where} could not write its status file: the disk is full or read-only"
    said = f"; its last words: {first_line(last, 160)}" if last else ""
    return "failed", "failed.exit", f"{where} exited with code {suspect.number} without reporting an error{said}"


def judge_garbage(evidence: Evidence, suspect: Suspect) -> Reasoned:
    """By a file that nobody can read."""
    problem = first_line(evidence.unreadable[suspect.rank], 120)
    return "failed", "failed.garbage", f"rank {suspect.rank} left a status file that cannot be read: {problem}"


def _where(evidence: Evidence, rank: int) -> str:
    return f"rank {rank}, in phase {evidence.phase(rank)},"


def words_of(error: RankError) -> str:
    """Type and message of an exception."""
    return f"{error['type']}: {error['message']}"


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
