"""`bench watch DIR`: follow a sweep that another bench, or the allocations of a cluster, work on."""

from argparse import Namespace
from typing import TYPE_CHECKING

from benchrunner.cli.command import Command, Example, Operands
from benchrunner.cli.directories import sweep_directory

if TYPE_CHECKING:
    from benchrunner.core.paths import SweepPaths
    from benchrunner.plan.plan import Plan


def watch(arguments: Namespace) -> int:
    """Report cells as they end until nobody works on the sweep any more, then print the tables."""
    from benchrunner.cli.cluster import follow_and_report
    from benchrunner.core.paths import SweepPaths
    from benchrunner.launch.launchers import allocator_for
    from benchrunner.run.options import RunOptions
    from benchrunner.store.plan_file import load_plan

    paths = SweepPaths(sweep_directory("watch", arguments.directories))
    made = load_plan(paths.root)
    allocator = allocator_for(made.settings.launcher)
    if allocator is None:
        return _watch_here(made, paths)
    return follow_and_report(made, paths, allocator, RunOptions(), only_watch=True)


def _watch_here(made: "Plan", paths: "SweepPaths") -> int:
    """A sweep of this machine, from its files."""
    from benchrunner.cli.run_and_report import report
    from benchrunner.run.clock import SystemClock
    from benchrunner.run.observe import observe

    summary = observe(made, paths, SystemClock())
    return summary.exit_code if summary.interrupted_by else report(paths, summary)


COMMAND = Command(
    run=watch,
    summary="follow a running sweep, here or on a cluster, until nobody works on it any more",
    details="Ctrl-C ends the watching and nothing else.",
    operands=Operands(name="directories", usage="DIR"),
    examples=(Example(line="bench watch outputs/latest", meaning="from another terminal, or after bench --detach"),),
)
