"""Cells of two sweeps run again in alternated pairs, until they are decided or the budget is out.

A pair runs within a minute or two on the same devices, so what drifts over hours is in both of its halves.
"""

import math
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from benchrunner.compare.decisions import Decided, decide_pairs
from benchrunner.compare.gate import GateOptions
from benchrunner.compare.metric import Metric
from benchrunner.compare.pairing import CellPair
from benchrunner.compare.side import MeasuredCell, Side
from benchrunner.core.errors import SweepDirError
from benchrunner.core.paths import place_of
from benchrunner.core.text import first_line
from benchrunner.store.records import read_record

LEAST_PAIRS = 3
"""Before the first look at them."""


class Rerun(Protocol):
    """Measures a cell of a side in one more process."""

    def __call__(self, side: Side, cell: MeasuredCell, metric: Metric) -> float | None:
        """Its number; None where the process was not ok."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairsPlan:
    """How long to go on."""

    most: int = 5
    """Pairs of a cell."""
    is_time_left: Callable[[], bool] = lambda: True

    @property
    def num_looks(self) -> int:
        """How often a cell may be decided: the correction is for that many."""
        return self.most - LEAST_PAIRS + 1


def run_pairs(
    cells: Sequence[CellPair],
    sides: tuple[Side, Side],
    options: GateOptions,
    rerun: Rerun,
    plan: PairsPlan,
    *,
    tell: Callable[[str], None],
) -> dict[str, list[float]]:
    """Cell id → of each pair, the logarithm of new ÷ base.

    Which side begins alternates, so that the second of a pair has no advantage. Cells that are decided are not run on.
    """
    differences: dict[str, list[float]] = {pair.cell_id: [] for pair in cells}
    waiting = list(cells)
    for number in range(1, plan.most + 1):
        for pair in waiting:
            if not plan.is_time_left():
                tell("the time is out")
                return differences
            tell(f"pair {number} of at most {plan.most}: {pair.slug}")
            found = _run_pair(pair, sides, options.metric, rerun, new_first=number % 2 == 0)
            differences[pair.cell_id] += [] if found is None else [found]
        if number >= LEAST_PAIRS:
            decided = decide_pairs(differences, options.min_effect, plan.num_looks).cells
            waiting = [pair for pair in waiting if _is_open(pair, decided)]
    return differences


def _is_open(pair: CellPair, decided: Mapping[str, Decided]) -> bool:
    return pair.cell_id not in decided or decided[pair.cell_id].decision == "undecided"


def _run_pair(
    pair: CellPair, sides: tuple[Side, Side], metric: Metric, rerun: Rerun, *, new_first: bool
) -> float | None:
    turns = [(sides[0], pair.base), (sides[1], pair.new)]
    values = [rerun(side, cell, metric) for side, cell in (reversed(turns) if new_first else turns)]
    base, new = reversed(values) if new_first else values
    return None if base is None or new is None else math.log(new / base)


@dataclass(frozen=True, slots=True)
class BenchRerun:
    """Runs `bench resume --repeats` of each side's own program."""

    commands: dict[str, list[str]]
    """Directory of a side → how its `bench` is called."""

    def __call__(self, side: Side, cell: MeasuredCell, metric: Metric) -> float | None:
        """See Rerun.

        Raises:
            SweepDirError: that program refuses, as it is another one than the sweep was measured with.
        """
        number = side.paths.processes(cell.slug)[-1] + 1
        words = ["resume", str(side.paths.root), "--cells", cell.planned.cell.cell_id, "--repeats", str(number)]
        try:
            done = subprocess.run(
                [*self.commands[str(side.paths.root)], *words], capture_output=True, encoding="utf-8", errors="replace"
            )
        except OSError as error:
            raise SweepDirError(f"{side.paths.root} cannot be run again: {error}") from error
        path = side.paths.cell(place_of(cell.slug, number)).record
        record, _ = read_record(path, cell.planned)
        if record is None:
            said = first_line(done.stderr.strip().rpartition("\n")[2]) or f"exit code {done.returncode}"
            raise SweepDirError(f"{side.paths.root} cannot be run again: {said}")
        return metric.value(record)
