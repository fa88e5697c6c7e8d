"""Run a plan and show its tables: the second half of `bench` and of `bench resume`, and the flags that both take."""

import sys
from argparse import Namespace
from typing import TYPE_CHECKING

from benchrunner.cli.command import Flag

if TYPE_CHECKING:
    from benchrunner.core.paths import SweepPaths
    from benchrunner.launch.job import Launcher
    from benchrunner.plan.plan import Plan
    from benchrunner.run.options import RunOptions
    from benchrunner.store.runs import ExitSummary

BUDGET = Flag(
    names=("--budget",),
    metavar="TIME",
    help="most informative cells first, none that is expected not to fit the rest of the time, e.g. 45m",
)
NO_INFER = Flag(
    names=("--no-infer",),
    help="run also larger micro-batches of a cell of which a smaller one ran out of memory",
)


def budget_s(arguments: Namespace) -> float | None:
    """The seconds of `--budget`; None where it was not given.

    Raises:
        UsageError: its value is no duration.
    """
    from benchrunner.run.budget import parse_duration

    return None if arguments.budget is None else parse_duration(arguments.budget)


def run_and_report(plan: "Plan", paths: "SweepPaths", launcher: "Launcher", options: "RunOptions") -> int:
    """Run every cell that is left, print the tables and, as the last line, the directory; the exit code.

    Tables that cannot be written are named on stderr and change nothing else.
    """
    from benchrunner.run.sweep import run_plan

    return report(paths, run_plan(plan, paths, launcher=launcher, options=options))


def report(paths: "SweepPaths", summary: "ExitSummary") -> int:
    """Print the tables of a run that has ended and, as the last line, the directory; the exit code."""
    from benchrunner.report.terminal import print_tables
    from benchrunner.report.write import write_report

    try:
        print_tables(write_report([paths]))
    except OSError as error:
        again = f"bench report {paths.root} makes them again"
        print(f"bench: the tables cannot be written: {error.strerror or error}; {again}", file=sys.stderr)
    print(paths.root, flush=True)
    return summary.exit_code
