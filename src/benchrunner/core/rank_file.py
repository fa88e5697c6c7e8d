"""What ranks and their agents leave beside the logs: each rank's own file, and the exit codes of those that failed."""

from dataclasses import dataclass, field
from pathlib import Path

from typing_extensions import TypedDict

from benchrunner.core.errors import DamagedFile
from benchrunner.core.files import read_json
from benchrunner.core.rank_result import RankError, RankResult
from benchrunner.core.record import Phase, RankState
from benchrunner.core.units import MIB

RANK_FILE_BYTES = 16 * MIB
EXITS_BYTES = 16 * MIB


@dataclass(kw_only=True)
class RankFile:
    """One rank's status, rewritten at every change of phase, so that it exists however the rank ends."""

    rank: int
    pid: int
    marker: str = ""
    """Of the launch that it belongs to."""
    state: RankState = "running"
    phase: Phase = "start"
    phase_started_at: float = 0.0
    """Unix time."""
    phases_s: dict[str, float] = field(default_factory=dict)
    """Seconds spent in each finished phase."""
    error: RankError | None = None
    result: RankResult | None = None


class Exit(TypedDict):
    """How a rank that failed ended; a negative code is a signal."""

    rank: int
    code: int


class ExitsFile(TypedDict):
    """In the order in which torchrun saw the ranks end, the ones that it ended itself last."""

    exits: list[Exit]


def read_rank_file(path: Path) -> RankFile:
    """A rank's status.

    Raises:
        FileNotFoundError: the rank has not written it.
        DamagedFile: it is no rank file, or another rank's.
    """
    status = read_json(path, RankFile, limit_bytes=RANK_FILE_BYTES)
    if path.name != f"rank{status.rank}.json":
        raise DamagedFile(f"it is the file of rank {status.rank}")
    return status


def read_exits(path: Path) -> dict[int, int]:
    """Rank → exit code, in the file's order.

    Raises:
        FileNotFoundError: no rank failed there.
        DamagedFile: it is no such file.
    """
    return {entry["rank"]: entry["code"] for entry in read_json(path, ExitsFile, limit_bytes=EXITS_BYTES)["exits"]}
