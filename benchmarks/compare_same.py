"""How often `bench compare` is wrong about real sweeps of the same thing, as a Markdown table.

    python benchmarks/compare_same.py --sweeps 20 OUT [override …]      runs them first (hours); usual: 20 tiny cells
    python benchmarks/compare_same.py OUT                               compares the sweeps that are there

Each sweep is compared with the next one: as they are (any FAIL is false), with 5 % planted in the newer one's first
cell, and in all of its cells (any PASS is false). What is planted multiplies the seconds in its records. Then the same
without the flags of the records: a cell that is flagged unstable is never FAIL, and says nothing of the statistics.
"""

import argparse
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from benchrunner.compare.gate import GateOptions, compare
from benchrunner.compare.pairing import pair_cells
from benchrunner.compare.side import MeasuredCell, Side, read_side
from benchrunner.core.paths import SweepPaths
from benchrunner.core.record import Record

TINY = [
    "-m", "precision=fp32,bf16", "activation_checkpointing=none,full", "seed=1,2,3,4,5", "measure.steps=40",
]  # fmt: skip
SLOWDOWN = 1.05
RATES = ("tokens_per_second_per_device", "decode_tokens_per_second")
VERDICTS = ("PASS", "INCONCLUSIVE", "FAIL")


def run_sweeps(out: Path, count: int, repeats: int, words: list[str]) -> None:
    for number in range(count):
        print(f"sweep {number + 1} of {count}", file=sys.stderr, flush=True)
        command = [sys.executable, "-m", "benchrunner", *words, f"repeats={repeats}", f"out_dir={out}"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def slowed(record: Record) -> Record:
    metrics = dict(record.metrics)
    metrics |= {name: metrics[name] / SLOWDOWN for name in RATES if metrics.get(name)}
    return replace(record, metrics=metrics)


def planted(side: Side, is_struck: Callable[[int], bool]) -> Side:
    """A copy of the side in which some cells (by their number) are slower."""

    def strike(number: int, cell: MeasuredCell) -> MeasuredCell:
        return replace(cell, records=[slowed(one) for one in cell.records]) if is_struck(number) else cell

    cells = {cell_id: strike(number, cell) for number, (cell_id, cell) in enumerate(side.cells.items())}
    return replace(side, cells=cells)


def unflagged(side: Side) -> Side:
    """A copy of the side whose processes look undisturbed."""
    cells = {
        cell_id: replace(cell, records=[replace(record, flags=[]) for record in cell.records])
        for cell_id, cell in side.cells.items()
    }
    return replace(side, cells=cells)


PLANTED: dict[str, Callable[[int], bool]] = {
    "nothing": lambda number: False,
    "5 % in one cell": lambda number: number == 0,
    "5 % in all cells": lambda number: True,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sweeps", type=int, default=0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("out", type=Path)
    given, words = parser.parse_known_args()
    run_sweeps(given.out, given.sweeps, given.repeats, words or TINY)
    plans = sorted(path for path in given.out.glob("*/*/plan.json") if path.parent.parent.name != "merged")
    sides = [read_side(SweepPaths(path.parent)) for path in plans if not path.parent.is_symlink()]
    print(f"{len(sides)} sweeps, {max(len(sides) - 1, 0)} comparisons\n")
    print("| planted | PASS | INCONCLUSIVE | FAIL | struck cells: PASS | FAIL | minimum detectable effect |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for note, kept in (("", sides), (", flags not heeded", [unflagged(side) for side in sides])):
        for name, is_struck in PLANTED.items():
            print(rates(f"{name}{note}", kept, is_struck))


def rates(name: str, sides: list[Side], is_struck: Callable[[int], bool]) -> str:
    """A row: the verdicts of each sweep against the one before it, and of the struck cells."""
    found = [compare(pair_cells(base, planted(new, is_struck)), GateOptions()) for base, new in pairwise(sides)]
    whole = Counter(one.verdict for one in found)
    struck = Counter(cell.verdict for one in found for number, cell in enumerate(one.cells) if is_struck(number))
    effects = [one.detectable for one in found if one.detectable is not None]
    span = f"{min(effects) * 100:.1f} to {max(effects) * 100:.1f} %" if effects else "unknown"
    counts = " | ".join(str(whole[verdict]) for verdict in VERDICTS)
    return f"| {name} | {counts} | {struck['PASS']} | {struck['FAIL']} | {span} |"


if __name__ == "__main__":
    main()
