"""Which ranks of an attempt may have ended it, and in which order they are suspected."""

import signal
from dataclasses import dataclass

from benchrunner.core.peer_loss import is_peer_loss
from benchrunner.core.rank_result import RankError
from benchrunner.outcome.evidence import Evidence


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


def priority(suspect: Suspect) -> tuple[bool, int, float, int]:
    """Innocents last; then what no peer can cause before what one can; then the earliest."""
    deadly = suspect.kind == "signal" and suspect.number != signal.SIGABRT and not suspect.is_collateral
    quiet = suspect.kind == "exit" and suspect.number == 0
    weight = 0 if deadly else 5 if quiet else {"error": 1, "signal": 2, "exit": 3, "garbage": 4}[suspect.kind]
    at = suspect.error.get("at", 0.0) if suspect.error else 0.0
    return suspect.is_collateral, weight, at, suspect.rank
