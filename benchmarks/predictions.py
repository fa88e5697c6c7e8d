"""Predicted against measured, over sweeps that were run: `python benchmarks/predictions.py DIR [DIR …]`.

Every measured cell is predicted anew by this version, for the device that it ran on: peak memory by the dry run where
it can be had (`--method analytic`: by arithmetic alone), step time by the calibration in conf/hardware.
`--calibrate-on N` fits the times to N cells of all directories first, chosen evenly, and judges the others. Prints
median and largest error, coverage by method, how often the 90 % intervals hold, and the cells that miss.
"""

import argparse
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchrunner.core.paths import SweepPaths
from benchrunner.core.record import Record
from benchrunner.core.units import GIB
from benchrunner.machine.hardware import Hardware, as_filed
from benchrunner.plan import predict
from benchrunner.plan.calibrate import Sample, calibrate
from benchrunner.plan.dry_runs import apply_dry_runs
from benchrunner.plan.plan import Plan, PlannedCell
from benchrunner.report.columns import predicted_peak_bytes
from benchrunner.store.plan_file import load_plan
from benchrunner.store.records import read_records

MISSES = {"memory": 0.03, "time": 0.12}
"""Errors beyond these are printed cell by cell."""


@dataclass(frozen=True, slots=True)
class Compared:
    """A cell's prediction and its record."""

    planned: PlannedCell
    record: Record

    def memory_error(self) -> float | None:
        """Predicted ÷ measured − 1; None on a CPU, whose peak is a process's."""
        measured = predicted_peak_bytes(self.planned.cell, self.record.metrics)
        if not measured:
            return None
        return (self.planned.predicted or {}).get("peak_memory_bytes", 0) / measured - 1

    def time_error(self) -> float | None:
        """The same of the step's time."""
        measured = self.record.metrics.get("step_time_median_s")
        seconds = (self.planned.predicted or {}).get("step_time_s")
        return seconds / measured - 1 if seconds and measured else None


@dataclass(frozen=True, slots=True)
class Sweep:
    """A directory's plan and the records of its measured cells."""

    directory: str
    plan: Plan
    measured: list[tuple[PlannedCell, Record]]
    problems: list[str]


def main() -> None:
    """Compare and print: each directory, and all of several together."""
    arguments = _arguments()
    sweeps = [_load(directory) for directory in arguments.directories]
    every = [(one, record) for sweep in sweeps for one, record in sweep.measured]
    fitted = every[:: max(1, len(every) // arguments.calibrate_on)] if arguments.calibrate_on else []
    samples = [Sample(cell=one.cell, record=record) for one, record in fitted[: arguments.calibrate_on]]
    used = {id(sample.record) for sample in samples}
    together: list[Compared] = []
    for sweep in sweeps:
        machine = as_filed(sweep.plan.hardware)
        if samples:
            machine = replace(machine, calibration={**machine.calibration, **calibrate(samples, machine)})
        predicted = _predicted([one for one, _ in sweep.measured], machine, arguments.method)
        compared = [Compared(one, record) for one, (_, record) in zip(predicted, sweep.measured, strict=True)]
        _print(sweep.directory, compared, used, sweep.problems)
        together += compared
    if len(sweeps) > 1:
        _print(f"all {len(sweeps)} directories", together, used, [])


def _load(directory: str) -> Sweep:
    plan = load_plan(directory)
    records, problems = read_records(plan.cells, SweepPaths(Path(directory)))
    found = [(one, records[one.cell.slug]) for one in plan.cells if one.cell.slug in records]
    return Sweep(directory, plan, [(one, record) for one, record in found if record.status == "ok"], [*problems])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directories", nargs="+", metavar="DIR")
    parser.add_argument("--method", choices=("dry_run", "analytic"), default="dry_run")
    parser.add_argument("--calibrate-on", type=int, default=0, metavar="N")
    return parser.parse_args()


def _predicted(cells: Sequence[PlannedCell], machine: Hardware, method: str) -> list[PlannedCell]:
    asked = []
    for one in cells:
        chosen = replace(one.cell.config.predict, name=method, formula="own")
        cell = replace(one.cell, config=replace(one.cell.config, predict=chosen))
        asked.append(replace(one, cell=cell, verdict="run", predicted=predict.predict(cell, machine)))
    return apply_dry_runs(asked, machine)


def _print(directory: str, compared: Sequence[Compared], fitted: set[int], problems: Iterable[str]) -> None:
    num_fitted = sum(id(one.record) in fitted for one in compared)
    print(f"\n{directory}: {len(compared)} measured cells, times fitted to {num_fitted} of them")
    for problem in problems:
        print(f"! {problem}")
    groups: dict[tuple[str, ...], list[Compared]] = defaultdict(list)
    for one in compared:
        axes = one.planned.cell.axes
        groups[tuple(axes[name] for name in ("workload", "precision", "compile"))].append(one)
    for name, members in [*sorted(groups.items()), (("all",), list(compared))]:
        print(f"{' '.join(name):<40}{_line(members, fitted)}")
    methods = defaultdict(int)
    for one in compared:
        methods[(one.planned.predicted or {}).get("method", "none")] += 1
    print("coverage: " + ", ".join(f"{count} by {method}" for method, count in sorted(methods.items())))
    others = [one for one in compared if id(one.record) not in fitted and one.time_error() is not None]
    held = [_holds(one) for one in others]
    if held:
        print(f"90 % intervals hold {sum(held)} of {len(held)} step times")
    _print_misses(compared, fitted)


def _line(members: Sequence[Compared], fitted: set[int]) -> str:
    memory = [abs(error) for one in members if (error := one.memory_error()) is not None]
    times = [abs(error) for one in members if id(one.record) not in fitted and (error := one.time_error()) is not None]
    return f"memory {errors_text(memory)}   time {errors_text(times)}"


def errors_text(errors: Sequence[float]) -> str:
    """Median and largest of errors without their signs."""
    if not errors:
        return f"{'– (0 cells)':<38}"
    return f"median {statistics.median(errors):6.2%}  max {max(errors):6.2%}  ({len(errors):3} cells)"


def _holds(one: Compared) -> bool:
    predicted, measured = one.planned.predicted or {}, one.record.metrics.get("step_time_median_s") or 0.0
    low, high = predicted.get("step_time_low_s"), predicted.get("step_time_high_s")
    return low is not None and high is not None and low <= measured <= high


def _print_misses(compared: Sequence[Compared], fitted: set[int]) -> None:
    for one in compared:
        memory, time = one.memory_error(), one.time_error() if id(one.record) not in fitted else None
        if abs(memory or 0.0) > MISSES["memory"]:
            peak = (one.planned.predicted or {}).get("peak_memory_bytes", 0) / GIB
            print(f"misses memory by {memory:+.1%} ({peak:.2f} GiB): {one.planned.cell.slug}")
        if abs(time or 0.0) > MISSES["time"]:
            print(f"misses time by {time:+.1%}: {one.planned.cell.slug}")


if __name__ == "__main__":
    main()
