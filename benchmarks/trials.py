"""Trials of an audit through the command line: what is done, what must hold, and whether it did.

`benchmarks/faults.py` makes a table of them; the slow tests run each (`tests/test_trials.py`). They are in
`trials_listed.py` (what once broke something), `trials_surroundings.py` and `trials_meanwhile.py`.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from victim import SWEEPS, TINY, Sweep, new_sweep, statuses, wait_for

ONE = [*TINY, "strategy=single"]
TWO = ["-m", *TINY, "strategy=single,ddp"]
FOUR = ["-m", *TINY, "strategy=single", "seed=0,1,2,3"]
LONG = [*TINY, "strategy=single", "measure.steps=4000"]
"""A cell that is measured for some seconds."""


class Broken(Exception):
    """Something does not hold."""


class CannotTell(Exception):
    """This machine does not let the trial be made."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One trial."""

    what: str
    command: str
    must: str
    run: Callable[[Sweep], str]
    """What was seen.

    Raises:
        Broken: what must hold does not.
        CannotTell: it could not be tried.
    """


@dataclass
class TrialRow:
    """A line of the table."""

    what: str
    command: str
    must: str
    observed: str
    holds: bool
    left: int
    lost: int

    def num_broken(self) -> int:
        return (not self.holds) + self.left + self.lost


def row_of(trial: Trial) -> TrialRow | None:
    """The trial, made in a folder of its own; None where it could not be."""
    with new_sweep() as sweep:
        try:
            observed, holds = trial.run(sweep), True
        except Broken as error:
            observed, holds = f"{error}", False
        except CannotTell:
            return None
        sweep.drain()
        return TrialRow(trial.what, trial.command, trial.must, observed, holds, sweep.left(), num_lost(sweep))


def tasks(trials: Sequence[Trial]) -> list[Callable[[], TrialRow | None]]:
    return [partial(row_of, trial) for trial in trials]


def num_lost(sweep: Sweep) -> int:
    """Planned cells without a record that can be read."""
    directory = sweep.directory()
    if directory is None or not (directory / "plan.json").is_file():
        return 0
    try:
        return sweep.num_planned() - len(sweep.records())
    except ValueError:  # a plan that the trial damaged
        return 0


def require(holds: bool, said: str) -> None:
    """Raises: Broken."""
    if not holds:
        raise Broken(said)


def require_ok(sweep: Sweep, code: int = 0, expected: int = 0) -> str:
    """Every cell ok, the exit code as expected, and no traceback was printed; what to say of it."""
    said = f"exit {code}; {statuses(sweep)}"
    require(code == expected and "Traceback" not in sweep.said(), f"{said}; {last_line(sweep)}")
    require(bool(sweep.records()) and all(record["status"] == "ok" for record in sweep.records().values()), said)
    return said


def require_refused(sweep: Sweep, code: int, words: str) -> str:
    """Exit code 1 and one line that says why."""
    line = last_line(sweep)
    require(code == 1 and words in line and "Traceback" not in sweep.said(), f"exit {code}: {line}")
    return f"exit 1: “{line.replace(str(sweep.out), '…')[:140]}”"


def last_line(sweep: Sweep) -> str:
    return next((line for line in reversed(sweep.said().splitlines()) if line.strip()), "")


def wait_for_state(sweep: Sweep, phase: str) -> None:
    """Until rank 0 of the first attempt is in this phase, or past it."""
    wait_for(lambda: any(_phase(path.read_text()) == phase for path in rank_files(sweep)), 120)


def rank_files(sweep: Sweep, rank: int = 0) -> list:
    return list(sweep.out.glob(f"{SWEEPS}/cells/*/attempt-*/rank{rank}.json"))


def _phase(text: str) -> str:
    try:
        return str(json.loads(text)["phase"])
    except ValueError:
        return ""


def spans(sweep: Sweep) -> list[tuple[float, float]]:
    """When each attempt was at work, by the files that it wrote first and last; Unix time."""
    found = []
    for attempt in sweep.out.glob(f"{SWEEPS}/cells/*/attempt-*"):
        found.append(((attempt / "cell.json").stat().st_mtime, (attempt / "rank0.json").stat().st_mtime))
    return sorted(found)


def pause(seconds: float) -> None:
    time.sleep(seconds)
