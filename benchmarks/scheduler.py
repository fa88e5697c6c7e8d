"""Are the devices kept busy: 40 cells of one device on 4, by scripted jobs, and by real ones where there are GPUs.

    python benchmarks/scheduler.py           the scheduler alone; with GPUs, short real cells through bench too
    python benchmarks/scheduler.py --alone   these one at a time as well, instead of the sum of their durations
    python benchmarks/scheduler.py --alone 6 only six of them one at a time, and from these all 40

Busy: the share of the time between the first launch and the moment when no cell waits in which every device has a cell.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from victim import visible_devices

from benchrunner.config.hydra_app import expand
from benchrunner.core.paths import SweepPaths
from benchrunner.launch.fake import FakeLauncher, Script
from benchrunner.machine.hardware import Hardware, detect
from benchrunner.plan.plan import Plan
from benchrunner.plan.planner import make_plan
from benchrunner.run.options import RunOptions
from benchrunner.run.sweep import run_plan
from benchrunner.store.plan_file import write_plan

NUM_CELLS, NUM_DEVICES = 40, 4
BUSY, SPEED_UP_A_DEVICE = 0.95, 3.5 / NUM_DEVICES
"""What must hold; on a host with fewer devices the speed-up in proportion."""

WORDS = ["model=debug", "strategy=single", "measure.steps=20", "measure.warmup_steps=5"]


@dataclass(frozen=True)
class Span:
    """One cell at work."""

    start_s: float
    end_s: float
    device: int


@dataclass(frozen=True)
class Result:
    """A line of the table."""

    name: str
    spans: Sequence[Span]
    alone_s: float
    how_alone: str

    @property
    def whole_s(self) -> float:
        return max(span.end_s for span in self.spans) - self.first_s

    @property
    def first_s(self) -> float:
        return min(span.start_s for span in self.spans)

    @property
    def last_launch_s(self) -> float:
        return max(span.start_s for span in self.spans)

    @property
    def num_devices(self) -> int:
        return len({span.device for span in self.spans})

    def busy(self) -> float:
        """The share of the time with a cell on every device while cells wait."""
        ends = [(span.start_s, 1) for span in self.spans] + [(span.end_s, -1) for span in self.spans]
        running, full_s, since_s = 0, 0.0, self.first_s
        for at_s, change in sorted(ends):
            at_s = min(at_s, self.last_launch_s)
            full_s += (at_s - since_s) * (running >= self.num_devices)
            running, since_s = running + change, at_s
        return full_s / (self.last_launch_s - self.first_s)

    @property
    def speed_up(self) -> float:
        return self.alone_s / self.whole_s

    def holds(self) -> bool:
        return self.busy() >= BUSY and self.speed_up >= SPEED_UP_A_DEVICE * self.num_devices


# --- scripted ------------------------------------------------------------------------------------------------------


def scripted(draw: random.Random, durations_s: tuple[float, float]) -> Result:
    """Jobs of drawn durations on a virtual clock: what is measured is the scheduler and the run loop."""
    machine = replace(detect(), name="four-devices", device_type="cuda", num_devices=NUM_DEVICES, memory_bytes=80 << 30)
    plan = make_plan(expand([*WORDS, f"seed=range(0,{NUM_CELLS})"], multirun=True), machine, [])
    seconds = {planned.cell.slug: draw.uniform(*durations_s) for planned in plan.cells}
    launcher = FakeLauncher(lambda job: Script(duration_s=seconds[job.cell.slug], result={}))
    with tempfile.TemporaryDirectory() as folder:
        _run(plan, SweepPaths(write_plan(plan, folder)), launcher, machine)
    spans = [Span(handle.started_s, handle.ended_s or 0.0, handle.job.devices[0]) for handle in launcher.handles]
    name = f"scripted, {durations_s[0]:g} to {durations_s[1]:g} s a cell"
    return Result(name, spans, sum(seconds.values()), "sum of durations")


def _run(plan: Plan, paths: SweepPaths, launcher: FakeLauncher, machine: Hardware) -> None:
    options = RunOptions(environment={"versions": {}}, hardware=machine, fault=None, clock=launcher.clock)
    run_plan(plan, paths, launcher=launcher, options=options)


# --- real ----------------------------------------------------------------------------------------------------------


def real(devices: Sequence[str], num_alone: int) -> Result:
    """The same matrix through `bench` on the GPUs; `num_alone` of the cells one at a time on the first of them too."""
    spans = _bench(devices, NUM_CELLS)
    alone_s, how = sum(span.end_s - span.start_s for span in spans), "sum of durations beside each other"
    beside = Result(f"real, {len(devices)} GPUs", spans, alone_s, how)
    print(_row(beside), file=sys.stderr, flush=True)
    if num_alone:
        alone = _bench(devices[:1], num_alone)
        measured_s = max(span.end_s for span in alone) - min(span.start_s for span in alone)
        alone_s = measured_s * NUM_CELLS / num_alone
        how = "measured" if num_alone == NUM_CELLS else f"{measured_s:.1f} for {num_alone} of them on one GPU"
    return replace(beside, alone_s=alone_s, how_alone=how)


def _bench(devices: Sequence[str], num_cells: int) -> list[Span]:
    with tempfile.TemporaryDirectory() as folder:
        words = ["-m", *WORDS, f"seed=range(0,{num_cells})", f"out_dir={folder}"]
        env = os.environ | {"CUDA_VISIBLE_DEVICES": ",".join(devices)}
        subprocess.run([sys.executable, "-m", "benchrunner", *words], env=env, check=True, stdout=sys.stderr)
        return [_span(path) for path in Path(folder).glob("*/*/cells/*/record.json")]


def _span(path: Path) -> Span:
    """From the job's file, written at its launch, to its record."""
    record: Mapping[str, list[int]] = json.loads(path.read_text())
    launched_s = (path.parent / "attempt-1" / "cell.json").stat().st_mtime
    return Span(launched_s, path.stat().st_mtime, record["devices_used"][0])


def main() -> int:
    options = _parse()
    draw = random.Random(options.seed)
    results = [scripted(draw, durations_s) for durations_s in ((5, 15), (1, 60), (10, 10))]
    devices = visible_devices()[:NUM_DEVICES]
    if len(devices) > 1:
        results.append(real(devices, options.alone))
    print(
        f"{NUM_CELLS} cells of one device; busy must be {BUSY:.0%} or more, the speed-up {SPEED_UP_A_DEVICE:.3f} or "
        f"more times the number of devices.\n"
    )
    print("| jobs | busy | s | one at a time, s | speed-up | holds |\n|---|---:|---:|---:|---:|---|")
    for result in results:
        print(_row(result))
    return 0 if all(result.holds() for result in results) else 3


def _row(result: Result) -> str:
    columns = (f"{result.busy():.1%}", f"{result.whole_s:.1f}", f"{result.alone_s:.1f} ({result.how_alone})")
    return f"| {result.name} | {' | '.join(columns)} | {result.speed_up:.2f} | {'yes' if result.holds() else 'no'} |"


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--alone", type=int, nargs="?", const=NUM_CELLS, default=0, metavar="N",
        help="run N of the cells (all) one at a time on one GPU, instead of adding up the durations beside each other",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
