"""Every file name of a sweep directory, in one place."""

import re
from dataclasses import dataclass
from errno import ENOENT
from pathlib import Path

from benchrunner.core.errors import UsageError

PACKAGE = Path(__file__).resolve().parents[1]
"""The installed package: the folder `benchrunner`."""

CHECKOUT = PACKAGE.parents[1]
"""The checkout, where the package runs from its source tree."""

PLAN = "plan.json"
ENVIRONMENT = "environment.json"
LOCK = ".lock"
ATTEMPT = "attempt-"
REPEAT = "repeat-"
"""The directory of a cell's second, third, … process inside of the cell's own, which is that of its first."""


NUMBER = re.compile(r"[1-9][0-9]{0,8}")
"""As the names of folders have it: `attempt-01`, `attempt-3.bak` and the like are somebody else's."""


def _numbered(folder: Path, prefix: str) -> list[int]:
    """The numbers of the folders that are called so, in their order; a file or a link is none, whatever its name."""
    found = [(path, path.name.removeprefix(prefix)) for path in folder.glob(f"{prefix}*")]
    return sorted(int(number) for path, number in found if NUMBER.fullmatch(number) and _is_folder(path))


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def config_dir() -> Path:
    """The `conf/` directory: beside the package in a wheel, else in the checkout.

    Found from `__file__` because editable installs keep a stale copy behind `pkg://`.

    Raises:
        UsageError: neither place holds a `config.yaml`: what was installed is not whole, or it is in a zip.
    """
    for place in (PACKAGE / "conf", CHECKOUT / "conf"):
        if (place / "config.yaml").is_file():
            return place
    raise UsageError(f"the program has no conf/config.yaml, neither in {PACKAGE} nor in {CHECKOUT}: install it whole")


def place_of(slug: str, repeat: int) -> str:
    """Where under `cells/` the process number `repeat` of a cell has its record and attempts."""
    return slug if repeat == 1 else f"{slug}/{REPEAT}{repeat}"


@dataclass(frozen=True, slots=True)
class AttemptPaths:
    """One attempt at a cell: what its worker reads and writes."""

    root: Path

    @property
    def cell(self) -> Path:
        """The job that the ranks read."""
        return self.root / "cell.json"

    @property
    def agent_log(self) -> Path:
        """Standard output and error of the agent (torchrun)."""
        return self.root / "agent.log"

    def exits(self, node: int = 0) -> Path:
        """The exit code of every rank that failed on a node, as its agent saw them; absent when none did."""
        return self.root / f"exits{node}.json"

    @property
    def cleaned(self) -> Path:
        """Says that the logs were shortened and scrubbed: see `run/log_cleaner.py`."""
        return self.root / ".cleaned"

    @property
    def cache(self) -> Path:
        """Compile caches of a cell that starts cold; removed when it ends."""
        return self.root / "cache"

    def logs(self, num_ranks: int) -> list[Path]:
        """Everything that the agent and so many ranks write into without end."""
        return [self.agent_log, *(path(rank) for rank in range(num_ranks) for path in (self.out, self.err))]

    def rank(self, rank: int) -> Path:
        """The status and result file of one rank."""
        return self.root / f"rank{rank}.json"

    def beat(self, rank: int) -> Path:
        """How many steps the rank has issued: see `heartbeat.py`."""
        return self.root / f"beat{rank}"

    def out(self, rank: int) -> Path:
        """Standard output of one rank."""
        return self.root / f"rank{rank}.out"

    def err(self, rank: int) -> Path:
        """Standard error of one rank."""
        return self.root / f"rank{rank}.err"


@dataclass(frozen=True, slots=True)
class CellPaths:
    """One cell of a sweep."""

    root: Path

    @property
    def record(self) -> Path:
        """The record: the row of the tables."""
        return self.root / "record.json"

    def attempt(self, number: int) -> AttemptPaths:
        """Attempt `number`, counted from 1."""
        return AttemptPaths(self.root / f"{ATTEMPT}{number}")

    def attempts(self) -> list[int]:
        """The numbers of the attempts that are here, the oldest first."""
        return _numbered(self.root, ATTEMPT)

    def last_attempt(self) -> int:
        """The highest number that anything has that is called like an attempt, so that none is ever overwritten."""
        names = (path.name.removeprefix(ATTEMPT) for path in self.root.glob(f"{ATTEMPT}*"))
        return max((int(name) for name in names if name.isascii() and name.isdecimal()), default=0)


@dataclass(frozen=True, slots=True)
class SweepPaths:
    """One sweep's directory."""

    root: Path

    @property
    def name(self) -> str:
        """The directory's own name, also where a link such as `outputs/latest` leads to it."""
        return self.root.resolve().name

    def require(self) -> None:
        """Raises FileNotFoundError: somebody has removed it; what is written there now would be found by nobody."""
        if not self.root.is_dir():
            raise FileNotFoundError(ENOENT, "the sweep's folder is no longer there", str(self.root))

    @property
    def plan(self) -> Path:
        """The frozen matrix."""
        return self.root / PLAN

    @property
    def environment(self) -> Path:
        """The versions, commit, driver and devices that the sweep ran with."""
        return self.root / ENVIRONMENT

    @property
    def runs(self) -> Path:
        """How each run over the sweep went: see `ledger.ExitSummary`."""
        return self.root / "runs.json"

    @property
    def lock(self) -> Path:
        """Held while the sweep is run or resumed."""
        return self.root / LOCK

    @property
    def workers(self) -> Path:
        """A file for each `bench work` that takes cells of the sweep: see `store/workers.py`."""
        return self.root / "workers"

    def claims(self, number: int) -> Path:
        """Who takes which cell, in round `number` (counted from 1): see `run/claims.py`."""
        return self.root / "claims" / str(number)

    @property
    def allocations(self) -> Path:
        """The jobs that a cluster was asked for: see `store/allocations_file.py`."""
        return self.root / "allocations.json"

    @property
    def html(self) -> Path:
        """The report as one page."""
        return self.root / "report.html"

    def table(self, name: str, suffix: str) -> Path:
        """`results.csv`, `compatibility.md`, …"""
        return self.root / f"{name}.{suffix}"

    def cell(self, place: str) -> CellPaths:
        """The directory of the cell with this slug, or of a further process of it: see `place_of`."""
        return CellPaths(self.root / "cells" / place)

    def processes(self, slug: str) -> list[int]:
        """The first process of a cell and those that have a directory here, in their order."""
        return [1, *(number for number in _numbered(self.cell(slug).root, REPEAT) if number > 1)]
