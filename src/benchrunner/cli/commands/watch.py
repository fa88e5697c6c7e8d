"""`bench watch DIR`: follow a sweep that allocations of a cluster work on."""

from argparse import Namespace

from benchrunner.cli.command import Command, Example, Operands
from benchrunner.cli.directories import sweep_directory
from benchrunner.core.errors import UsageError


def watch(arguments: Namespace) -> int:
    """Report cells as they end until the allocations have ended, then print the tables. Changes nothing."""
    from benchrunner.cli.cluster import follow_and_report
    from benchrunner.core.paths import SweepPaths
    from benchrunner.launch.launchers import allocator_for
    from benchrunner.run.options import RunOptions
    from benchrunner.store.plan_file import load_plan

    paths = SweepPaths(sweep_directory("watch", arguments.directories))
    made = load_plan(paths.root)
    allocator = allocator_for(made.settings.launcher)
    if allocator is None:
        raise UsageError("watch is for sweeps on a cluster; of launcher=local, bench report DIR shows what there is")
    return follow_and_report(made, paths, allocator, RunOptions(), only_watch=True)


COMMAND = Command(
    run=watch,
    summary="follow a sweep on a cluster until its allocations have ended; changes nothing",
    details="Ctrl-C ends the watching and nothing else.",
    operands=Operands(name="directories", usage="DIR"),
    examples=(Example(line="bench watch outputs/latest", meaning="after bench --detach"),),
)
