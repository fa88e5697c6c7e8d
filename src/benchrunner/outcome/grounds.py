"""The evidence block of a record: the root rank's lines, and where every rank stood."""

from benchrunner.core.record import Grounds, RankEnd
from benchrunner.core.text import plain
from benchrunner.outcome.evidence import Evidence

EVIDENCE_LINES = 12


def describe(evidence: Evidence, rank: int) -> Grounds:
    """The evidence block of a record: the root rank's lines, and where every rank stood."""
    error = evidence.ranks[rank].error if rank in evidence.ranks else None
    traceback = error.get("traceback", "") if error else ""
    lines = [line for line in plain(traceback).splitlines() if line.strip()]
    name = f"rank{rank}.json" if lines else f"rank{rank}.err"
    return {
        "rank": rank,
        "file": place_of_file(evidence, name),
        "lines": list(lines or evidence.tail(rank))[-EVIDENCE_LINES:],
        "stdout": list(evidence.tail(rank, "out"))[-EVIDENCE_LINES:],
        "memory": (error.get("memory") if error else None) or None,
        "ranks": [stand_of(evidence, other) for other in range(evidence.world_size)],
    }


def stand_of(evidence: Evidence, rank: int) -> RankEnd:
    """Where a rank was, and how it ended."""
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


def place_of_file(evidence: Evidence, name: str) -> str:
    """The name of a file from the directory of the cell."""
    return f"{evidence.directory}/{name}" if evidence.directory else name
