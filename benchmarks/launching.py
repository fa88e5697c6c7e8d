"""What lies between cells: every second that is not build, compile, warm-up, measure or check, from one record on the
disk to the next.

    python benchmarks/launching.py            `single`, and `ddp` over 2 CPU ranks
    python benchmarks/launching.py --gpu      `single` on the first GPU, and `ddp` over all that are visible

Sweeps of tiny cells, one cell at a time: their processes forked from one that has torch loaded, and started anew for
each cell (`launcher.preload=false`), in turns. The first cell of a sweep waits for the imports that the others are
spared, so it is told apart.
"""

import argparse
import json
import os
import statistics
import sys
from dataclasses import dataclass

from victim import new_sweep, visible_devices

from benchrunner.core.record import PHASES

WORK = ("build", "compile", "warmup", "measure", "check")
CELL = ["-m", "model=debug", "measure.steps=3", "measure.warmup_steps=1"]


@dataclass(frozen=True)
class Cell:
    """Seconds from the record before (the plan, for the first cell) to its own, and by phase."""

    whole_s: float
    phases_s: dict[str, float]

    @property
    def outside_s(self) -> float:
        return self.whole_s - sum(self.phases_s[phase] for phase in WORK)


def run_sweep(strategy: str, num_cells: int, *, preload: bool) -> list[Cell]:
    """The cells of one sweep in their order."""
    words = [*CELL, f"strategy={strategy}", f"seed=range(0,{num_cells})", f"launcher.preload={str(preload).lower()}"]
    words.append("exclusive=true")  # cells beside each other have no time between them
    with new_sweep() as sweep:
        if sweep.run(words):
            sys.exit((sweep.out / "bench.log").read_text())
        root = sweep.directory()
        files = sorted((*root.glob("cells/*/record.json"), root / "plan.json"), key=lambda path: path.stat().st_mtime)
        ends = [path.stat().st_mtime for path in files]
        records = [json.loads(path.read_text()) for path in files[1:]]
    return [Cell(end - before, made["phases_s"]) for before, end, made in zip(ends, ends[1:], records, strict=False)]


def row(name: str, cells: list[Cell]) -> str:
    """Medians as a line of Markdown; `launch` is what no phase of a rank holds."""
    phases = {phase: statistics.median(cell.phases_s[phase] for cell in cells) for phase in PHASES}
    launch = statistics.median(cell.whole_s - sum(cell.phases_s.values()) for cell in cells)
    whole, outside = (statistics.median(getattr(cell, of) for cell in cells) for of in ("whole_s", "outside_s"))
    seconds = [launch, *phases.values(), whole, outside]
    return f"| {name} | {len(cells)} | " + " | ".join(f"{value:.2f}" for value in seconds) + " |"


def main() -> None:
    options = _parse()
    if not options.gpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    elif len(visible_devices()) == 0:
        sys.exit("no GPU is visible")
    print("| cells | number | launch | " + " | ".join(PHASES) + " | in all | outside |")
    print("|---|---:|---:|" + "---:|" * (len(PHASES) + 2))
    for strategy in ("single", "ddp"):
        first: dict[bool, list[Cell]] = {True: [], False: []}
        later: dict[bool, list[Cell]] = {True: [], False: []}
        for _ in range(options.rounds):
            for preload in (False, True):
                cells = run_sweep(strategy, options.cells, preload=preload)
                first[preload].append(cells[0])
                later[preload] += cells[1:]
        for preload, how in ((False, "started"), (True, "forked")):
            print(row(f"`{strategy}`, {how}", later[preload]))
            print(row(f"`{strategy}`, {how}, the first of a sweep", first[preload]), flush=True)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpu", action="store_true", help="on GPUs; else they are hidden")
    parser.add_argument("--cells", type=int, default=6, help="of a sweep")
    parser.add_argument("--rounds", type=int, default=2, help="sweeps of each kind")
    return parser.parse_args()


if __name__ == "__main__":
    main()
