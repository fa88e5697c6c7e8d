"""A sweep on a small file system of its own, which becomes full or read-only under it: `disk_job.py KIND DIR`.

Run under `unshare --mount`. Prints as JSON what could be read afterwards, and what a resumed sweep made of it.
"""

import json
import subprocess
import sys
from pathlib import Path

from benchrunner.cli.run_and_report import run_and_report
from benchrunner.core.paths import SweepPaths
from benchrunner.launch.fake import FakeLauncher, Script
from benchrunner.launch.job import Job
from benchrunner.machine.hardware import Hardware
from benchrunner.plan.plan import Plan, PlannedCell
from benchrunner.run.options import RunOptions
from benchrunner.store.plan_file import write_plan
from fake_sweeps import RESULT
from samples import CPU, make_cell, plan_cell

BAD = {"full": (2, 4), "readonly": (2, 4), "full_to_the_end": (4, 6)}
"""Kind → the cells, counted from 0, from which until which nothing can be written."""


def main(kind: str, place: Path) -> None:
    """Mount, run, look, resume, look again."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(place)], check=True)
    cells = [plan_cell(make_cell(leaves={"seed": seed})) for seed in range(6)]
    plan = Plan(cells=cells, hardware=CPU, sweep_name="cli", arguments=[], created_at="2026-11-21T03:00:00+00:00")
    paths = SweepPaths(write_plan(plan, place))
    trouble = ReadOnly(place) if kind == "readonly" else Full(place)
    code = run(plan, paths, trouble, *BAD[kind])
    trouble.ends()
    before = look(cells, paths)
    leftovers = [path.name for path in place.rglob("*.tmp")]
    resumed = run(plan, paths, None)
    rows = len(paths.table("results", "csv").read_text().splitlines())
    after = look(cells, paths)
    print(json.dumps({"code": code, "before": before, "leftovers": leftovers, "resumed": resumed}
                     | {"after": after, "rows": rows}))  # fmt: skip


class Full:
    """Nothing is left of the disk."""

    def __init__(self, place: Path) -> None:
        self.filler = place / "filler"

    def begins(self) -> None:
        """Take every byte."""
        try:
            with open(self.filler, "wb", buffering=0) as file:
                while True:
                    file.write(b"\0" * 4096)
        except OSError:
            return

    def ends(self) -> None:
        """Give them back."""
        self.filler.unlink(missing_ok=True)


class ReadOnly:
    """The file system takes no writes, as after an error of its disk."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.is_forbidden = False

    def begins(self) -> None:
        """From now on: the lock is open for writing, so that only a second mount over the first can be read-only."""
        self.is_forbidden = True
        subprocess.run(["mount", "--bind", str(self.place), str(self.place)], check=True)
        subprocess.run(["mount", "-o", "remount,bind,ro", str(self.place)], check=True)

    def ends(self) -> None:
        """Until now."""
        if self.is_forbidden:
            subprocess.run(["umount", str(self.place)], check=True)
        self.is_forbidden = False


def run(plan: Plan, paths: SweepPaths, trouble: Full | ReadOnly | None, begin: int = 0, end: int = 0) -> int:
    """Run or, without trouble, resume, and make the tables; the exit code."""

    def script(job: Job) -> Script:
        if trouble and job.cell.config.seed == begin:
            trouble.begins()
        if trouble and job.cell.config.seed == end:
            trouble.ends()
        return Script(result=RESULT)

    launcher = FakeLauncher(script)
    hardware: Hardware = CPU
    options = RunOptions(
        resume=trouble is None, environment={"versions": {}}, clock=launcher.clock, fault=None, hardware=hardware
    )
    return run_and_report(plan, paths, launcher, options)


def look(cells: list[PlannedCell], paths: SweepPaths) -> list[list[object] | None]:
    """Status and attempt of every record; null where there is none."""
    files = [paths.cell(planned.cell.slug).record for planned in cells]
    records = [json.loads(file.read_text()) if file.exists() else None for file in files]
    return [[record["status"], record["attempt"]] if record else None for record in records]


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
