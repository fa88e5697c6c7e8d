"""Deaths of a rank on real GPUs, through `bench`: the verdict, how soon, and the next cell on the same devices.

    python benchmarks/gpu_deaths.py                   on all visible GPUs, about 3 minutes on 4 × H200
    python benchmarks/gpu_deaths.py --out FILE        into a file instead of stdout
    python benchmarks/gpu_deaths.py --cpu             the same with small cells on 2 CPU ranks, to try this script

Each death has a sweep of its own, of two equal cells: one that is struck and one after it, held against the same cell
undisturbed, which is run first. The faults are planted but real: the memory is filled with allocations, cuBLAS is asked
for handles on the full device, the process is killed, sleeps, makes a weight NaN, or reads beyond a tensor when its
checks begin.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import fault_table
from victim import BENCH, TINY, new_sweep, recorded_at_s, struck_at_s, visible_devices

CELL = ["model=llama2-7b", "model.num_layers=2", "precision=bf16", "measure.warmup_steps=3", "measure.steps=10"]
"""About 0.7 billion parameters: a step is tens of milliseconds, a cell seconds."""

HANG_LIMIT_S = 15.0
VERDICT_S = 30.0
"""What must hold: so soon the verdict is there."""
SLOWER = 1.1
"""What must hold: the next cell's step takes at most so many times as long as the undisturbed one's."""


@dataclass(frozen=True)
class Death:
    """A way to die, and the verdict that it must get."""

    name: str
    fault: str
    rank: int
    phase: str
    reason_code: str
    limit_s: float = 0.0
    """What the verdict has to wait for."""


def deaths(num_ranks: int) -> list[Death]:
    """Each on another rank, as far as there are some."""
    told = [
        ("CUDA out of memory", "oom", "measure", "oom.device", 0.0),
        ("cuBLAS fails on a full device", "oom_disguised", "measure", "oom.disguised", 0.0),
        ("SIGKILL", "sigkill", "measure", "failed.signal", 0.0),
        ("hang", "hang", "measure", "timeout.measure", HANG_LIMIT_S),
        ("NaN in a weight", "nan", "warmup", "failed.nonfinite", 0.0),
        ("a check breaks the device", "broken_device", "check", "ok", 0.0),
    ]
    ranks = [(index + 1) % num_ranks for index in range(len(told))]
    return [
        Death(name, fault, rank, phase, code, limit_s)
        for rank, (name, fault, phase, code, limit_s) in zip(ranks, told, strict=True)
    ]


@dataclass(frozen=True)
class Observed:
    """A line of the table."""

    death: Death
    reason_code: str
    rank: int | None
    reason: str
    seconds: float | None
    """From the event, or from the limit, to the record on disk."""
    next_status: str
    same_devices: bool
    step_ratio: float | None
    """The next cell's step ÷ the undisturbed one's."""
    left: int

    def holds(self) -> bool:
        verdict = (self.reason_code, self.rank) == (self.death.reason_code, self.death.rank)
        soon = self.seconds is not None and self.seconds < VERDICT_S
        normal = self.next_status == "ok" and self.same_devices and (self.step_ratio or SLOWER + 1) <= SLOWER
        return verdict and soon and normal and self.left == 0


def undisturbed(words: list[str]) -> dict:
    """The record of the cell that nothing happens to."""
    with new_sweep() as sweep:
        sweep.run([*words, "seed=0"])
        (record,) = sweep.records().values() or [None]
        if record is None or record["status"] != "ok":
            sys.exit(f"the undisturbed cell is not ok\n{(sweep.out / 'bench.log').read_text()[-4000:]}")
        return record


def observe(death: Death, words: list[str], first: dict) -> Observed:
    with new_sweep() as sweep:
        words = ["-m", *words, "seed=1,2", f"limits.measure_s={HANG_LIMIT_S:g}"]
        struck, after = _slugs(words)
        sweep.run(words, f"{death.fault}@{death.rank}:{death.phase}/{struck}")
        records = sweep.records()
        dead, following = (records.get(slug) for slug in (struck, after))
        if dead is None or following is None:
            sys.exit(f"{death.name}: not every cell has a record\n{(sweep.out / 'bench.log').read_text()[-4000:]}")
        struck_s = struck_at_s(sweep, dead)
        return Observed(
            death=death,
            reason_code=dead["reason_code"] or dead["status"],
            rank=(dead["evidence"] or {}).get("rank"),
            reason=dead["reason"] or "",
            seconds=None if struck_s is None else recorded_at_s(sweep, dead) - struck_s - death.limit_s,
            next_status=following["reason_code"] or following["status"],
            same_devices=first["devices_used"] == dead["devices_used"] == following["devices_used"],
            step_ratio=_ratio(following, first),
            left=sweep.left(),
        )


def _slugs(words: list[str]) -> list[str]:
    done = subprocess.run([*BENCH, "plan", *words, "--json"], capture_output=True, text=True, check=True)
    return [cell["slug"] for cell in json.loads(done.stdout)["cells"]]


def _ratio(record: dict, to: dict) -> float | None:
    mine, other = (one["metrics"].get("step_time_median_s") for one in (record, to))
    return mine / other if mine and other else None


def document(found: list[Observed], words: list[str], num_ranks: int) -> str:
    lines = [
        f"# Deaths of one rank of {num_ranks}",
        fault_table.source(shlex.join(["python", "benchmarks/gpu_deaths.py", *sys.argv[1:]])),
        f"Cells: `bench -m {shlex.join(words)} seed=1,2`, the first of them struck by `BENCH_FAULT`.",
        "Seconds run from the event (hang: from its limit) to the record on disk. Step: that of the cell after the "
        "struck one, on the same devices, as a multiple of the undisturbed cell's, which was run before them.",
        "\n".join(_table(found)),
        "\n".join(f"- {seen.death.name}: {seen.reason}" for seen in found),
    ]
    return "\n\n".join(lines) + "\n"


def _table(found: list[Observed]) -> list[str]:
    lines = [
        "| death | rank struck | verdict | root rank | seconds | next | same devices | step | left running | holds |",
        "|---|---:|---|---:|---:|---|---|---:|---:|---|",
    ]
    for seen in found:
        seconds = "–" if seen.seconds is None else f"{seen.seconds:.1f}"
        ratio = "–" if seen.step_ratio is None else f"{seen.step_ratio:.3f}"
        columns = [seen.death.name, seen.death.rank, f"`{seen.reason_code}`", seen.rank, seconds, seen.next_status]
        columns += [_yes(seen.same_devices), ratio, seen.left, _yes(seen.holds())]
        lines.append(f"| {' | '.join(map(str, columns))} |")
    return lines


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def main() -> int:
    options = _parse()
    if options.cpu:
        os.environ |= {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    num_ranks = 2 if options.cpu else len(visible_devices())
    if num_ranks < 2:
        sys.exit("needs two visible CUDA devices or more; --cpu tries the script without")
    words = ["strategy=ddp", *(TINY if options.cpu else CELL)]
    first, found = undisturbed(words), []
    for death in deaths(num_ranks):
        if not options.only or death.fault in options.only.split(","):
            found.append(observe(death, words, first))
            print(found[-1], file=sys.stderr, flush=True)
            text = document(found, words, num_ranks)
            if options.out:
                options.out.write_text(text)
    print(text)
    return 0 if all(seen.holds() for seen in found) else 3


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="kinds of faults, comma-separated")
    parser.add_argument("--cpu", action="store_true", help="2 CPU ranks and small cells")
    parser.add_argument("--out", type=Path, help="write the document here too, after every death")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
