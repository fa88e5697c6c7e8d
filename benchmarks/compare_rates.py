"""How often `bench compare` is wrong: simulated sweeps through its own statistics, as a Markdown table.

    python benchmarks/compare_rates.py [--comparisons 400] [--seed 0]

Each comparison has 20 cells, and of each cell as many processes a side as the row says, in rounds over the sweep.
A false FAIL is a comparison of the same thing that fails; a missed slowdown is one of 5 % that passes.
"""

import argparse
import random
from collections.abc import Sequence
from dataclasses import dataclass

from benchrunner.compare.decisions import decide, decide_pairs

NUM_CELLS = 20
MIN_EFFECT = 0.03
SLOWDOWN = 1.05
NUM_PAIRS = 5


@dataclass(frozen=True)
class World:
    """How processes vary; shares of their time."""

    name: str
    spread: float
    """From process to process."""
    num_processes: int = 3
    unequal: float = 1.0
    """The spread of a cell is between spread ÷ this and spread × this."""
    outliers: float = 0.0
    """So many processes are several spreads too slow."""
    rounds: float = 0.0
    """What all cells of a round share."""
    walk: float = 0.0
    """The same as a random walk from round to round, through both sweeps."""


WORLDS = (
    World("0.3 %", 0.003),
    World("1 %", 0.01),
    World("1 %, five processes", 0.01, num_processes=5),
    World("1.5 %", 0.015),
    World("2 %", 0.02),
    World("cells differ: 0.3 to 3 %", 0.01, unequal=3.0),
    World("1 %, one process in ten is an outlier", 0.01, outliers=0.1),
    World("1 %, rounds differ by 1 %", 0.01, rounds=0.01),
    World("1 %, drifts by 1 % a round", 0.01, walk=0.01),
    World("8 % (a shared CPU)", 0.08, unequal=2.0, outliers=0.05, walk=0.01),
)


class Machine:
    """Draws the logarithms of times."""

    def __init__(self, world: World, draw: random.Random) -> None:
        self.world, self.draw, self.level = world, draw, 0.0
        self.spreads = [world.spread * world.unequal ** draw.uniform(-1, 1) for _ in range(NUM_CELLS)]

    def begin_round(self) -> None:
        self.level += self.draw.gauss(0, self.world.walk)
        self.shared = self.level + self.draw.gauss(0, self.world.rounds)

    def time(self, cell: int, factor: float) -> float:
        outlier = abs(self.draw.gauss(0, 4)) if self.draw.random() < self.world.outliers else 0.0
        return self.shared + self.spreads[cell] * (self.draw.gauss(0, 1) + outlier) + factor

    def sweep(self, factors: Sequence[float]) -> list[list[float]]:
        rows = []
        for _ in range(self.world.num_processes):
            self.begin_round()
            rows.append([self.time(cell, factors[cell]) for cell in range(NUM_CELLS)])
        return [list(column) for column in zip(*rows, strict=True)]

    def pairs(self, cells: Sequence[int], factors: Sequence[float]) -> dict[str, list[float]]:
        found: dict[str, list[float]] = {str(cell): [] for cell in cells}
        for _ in range(NUM_PAIRS):
            self.begin_round()
            for cell in cells:
                found[str(cell)].append(self.time(cell, factors[cell]) - self.time(cell, 0.0))
        return found


def outcome(world: World, draw: random.Random, factors: Sequence[float], confirm: bool) -> tuple[str, dict[str, str]]:
    """(verdict of the comparison, verdicts of the cells)."""
    machine = Machine(world, draw)
    base, new = machine.sweep([0.0] * NUM_CELLS), machine.sweep(factors)
    decided = decide({str(cell): [base[cell], new[cell]] for cell in range(NUM_CELLS)}, MIN_EFFECT).cells
    decisions: dict[str, str] = {cell: one.decision for cell, one in decided.items()}
    if confirm:
        suspects = [int(cell) for cell, one in decided.items() if one.decision == "slower" or one.doubt]
        fresh = decide_pairs(machine.pairs(suspects, factors), MIN_EFFECT, num_looks=NUM_PAIRS - 2).cells
        decisions |= {cell: one.decision for cell, one in fresh.items()}
    if "slower" in decisions.values():
        return "FAIL", decisions
    return ("INCONCLUSIVE" if "undecided" in decisions.values() else "PASS"), decisions


def rates(world: World, count: int, seed: str, confirm: bool) -> tuple[float, ...]:
    """Shares of `count` comparisons: false FAIL, PASS of the same; 5 % in one cell found, passed; 5 % in all: FAIL."""
    draw = random.Random(f"{seed} {world.name}")
    log = SLOWDOWN - 1
    one, everything = [log] + [0.0] * (NUM_CELLS - 1), [log] * NUM_CELLS
    same = [outcome(world, draw, [0.0] * NUM_CELLS, confirm)[0] for _ in range(count)]
    found = [outcome(world, draw, one, confirm)[1]["0"] for _ in range(count)]
    whole = [outcome(world, draw, everything, confirm)[0] for _ in range(count)]
    asked = ((same, "FAIL"), (same, "PASS"), (found, "slower"), (found, "same"), (whole, "FAIL"))
    return tuple(values.count(what) / count for values, what in asked)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--comparisons", type=int, default=400)
    parser.add_argument("--seed", default="0")
    given = parser.parse_args()
    print("| processes vary by | false FAIL | PASS of the same | 5 % in one cell: found | passed | 5 % in all: FAIL |")
    print("| --- | --- | --- | --- | --- | --- |")
    for world in WORLDS:
        for confirm in (False, True):
            shares = rates(world, given.comparisons, given.seed, confirm)
            name = f"{world.name}, --confirm" if confirm else world.name
            print(f"| {name} | {' | '.join(f'{share:.1%}' for share in shares)} |", flush=True)


if __name__ == "__main__":
    main()
