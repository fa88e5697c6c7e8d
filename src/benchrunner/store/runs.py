"""runs.json: how each run over a sweep went."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from typing_extensions import TypedDict

from benchrunner.core.errors import DamagedFile
from benchrunner.core.files import read_json, write_json
from benchrunner.core.paths import SweepPaths
from benchrunner.core.record import Status
from benchrunner.core.units import MIB

RUNS_BYTES = 16 * MIB

BAD_STATUSES: tuple[Status, ...] = ("failed", "timeout", "invalid")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitSummary:
    """How a sweep ended."""

    counts: Mapping[str, int]
    """Status → cells; one without a record counts as skipped."""
    num_attempted: int
    """Cells that were launched, now or before."""
    interrupted_by: int | None = None
    """The signal."""
    busy_share: float | None = None
    """Device seconds at work ÷ those from the first launch until no cell waited; None when none ever did."""
    concurrency: float | None = None
    """Cells at work at once, on average."""
    stopped_by: str | None = None
    """What ended the sweep early: brake | disk; None: nothing."""
    notes: Sequence[str] = ()
    """What a reader must know beside the cells, e.g. that a device was given up."""
    num_predicted: int = 0
    """Cells that are their prediction alone, as `predict=only` asks."""
    unwanted: Sequence[str] = ()
    """What `--fail-on` names that happened: statuses and reason codes."""

    @property
    def exit_code(self) -> int:
        """0 as expected, 2 some cell is bad or unwanted, 4 none is ok or predicted, 128 + signal when interrupted."""
        if self.interrupted_by is not None:
            return 128 + self.interrupted_by
        if self.stopped_by is not None or any(self.counts.get(status) for status in BAD_STATUSES):
            return 2
        if self.unwanted:
            return 2
        return 0 if self.counts.get("ok") or self.num_predicted else 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run over a sweep; a run of an older version may lack what came later."""

    started_at: str | None = None
    """ISO 8601, UTC."""
    counts: dict[str, int] = field(default_factory=dict)
    num_attempted: int = 0
    interrupted_by: int | None = None
    busy_share: float | None = None
    concurrency: float | None = None
    stopped_by: str | None = None
    notes: list[str] = field(default_factory=list)


class RunsFile(TypedDict):
    """Oldest first."""

    runs: list[Run]


def read_runs(paths: SweepPaths) -> tuple[list[Run], str | None]:
    """How each run over the sweep went, oldest first; and what is wrong with the file, if anything."""
    try:
        return read_json(paths.runs, RunsFile, limit_bytes=RUNS_BYTES)["runs"], None
    except FileNotFoundError:
        return [], None
    except DamagedFile as error:
        return [], f"{paths.runs.name} is damaged and was skipped: {error}"


def add_run(paths: SweepPaths, summary: ExitSummary, started_at: str) -> None:
    """Add how a run went to the others.

    Raises:
        OSError: the file cannot be written.
    """
    run = Run(
        started_at=started_at,
        counts=dict(summary.counts),
        num_attempted=summary.num_attempted,
        interrupted_by=summary.interrupted_by,
        busy_share=summary.busy_share,
        concurrency=summary.concurrency,
        stopped_by=summary.stopped_by,
        notes=list(summary.notes),
    )
    write_json(paths.runs, {"runs": [asdict(one) for one in (*read_runs(paths)[0], run)]})


def usage_line(busy_share: float | None, concurrency: float | None) -> str | None:
    """`devices at work 97 % of the time while cells waited; 3.8 cells at once on average`; None when none waited."""
    if busy_share is None:
        return None
    at_once = "" if concurrency is None else f"; {concurrency:.1f} cells at once on average"
    return f"devices at work {busy_share:.1%} of the time while cells waited{at_once}"
