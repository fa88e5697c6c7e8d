"""`bench resume DIR`: run what is missing or failed in a sweep, from its frozen plan."""

from argparse import Namespace
from typing import TYPE_CHECKING

from benchrunner.cli.cluster import DETACH, follow_and_report, require_cluster
from benchrunner.cli.command import Command, Example, Flag, Operands
from benchrunner.cli.directories import sweep_directory
from benchrunner.cli.run_and_report import BUDGET, NO_INFER, budget_s, run_and_report
from benchrunner.core.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from benchrunner.plan.plan import Plan
    from benchrunner.run.resume import Selection

RESUMED = ("failed", "timeout", "skipped")
"""Statuses that are run again."""


def resume(arguments: Namespace) -> int:
    """Run what is left of a sweep, or what is selected of it, and print its tables."""
    from benchrunner.core.paths import SweepPaths
    from benchrunner.launch.launchers import allocator_for
    from benchrunner.launch.local import LocalLauncher
    from benchrunner.run.options import RunOptions
    from benchrunner.store import plan_file

    directory = sweep_directory("resume", arguments.directories)
    made = plan_file.load_plan(directory)
    require_cluster(made.settings.launcher.name, arguments)
    allocator = allocator_for(made.settings.launcher)
    options = RunOptions(
        resume=True,
        mix=arguments.mix,
        selection=_selection(arguments, made),
        budget_s=budget_s(arguments),
        infer=not arguments.no_infer,
    )
    if allocator is not None:
        return follow_and_report(made, SweepPaths(directory), allocator, options, detach=arguments.detach)
    return run_and_report(made, SweepPaths(directory), LocalLauncher(), options)


def _selection(arguments: Namespace, made: "Plan") -> "Selection":
    from benchrunner.run.resume import Selection

    statuses = frozenset(filter(None, (arguments.only or "").split(",")))
    if unknown := sorted(statuses - set(RESUMED)):
        hint = did_you_mean(unknown[0], RESUMED)
        raise UsageError(f"--only: {unknown[0]!r} is not one of {', '.join(RESUMED)}{hint}: other verdicts are kept")
    chosen = Selection(cells=tuple(filter(None, [arguments.cells])))
    if not any(chosen.takes(planned, None) for planned in made.cells):
        raise UsageError(f"--cells: no cell's name or id matches {arguments.cells!r}")
    return Selection(statuses=statuses, cells=chosen.cells)


COMMAND = Command(
    run=resume,
    summary="run what is missing or failed in a sweep directory",
    details=f"The plan is the one that the directory holds. Verdicts other than {', '.join(RESUMED)} are kept.",
    operands=Operands(name="directories", usage="DIR"),
    flags=(
        Flag(names=("--mix",), help="even on other versions or devices; such records are flagged mixed_environment"),
        BUDGET,
        NO_INFER,
        DETACH,
        Flag(names=("--only",), metavar="STATUS,…", help=f"those that ended so: {', '.join(RESUMED)}"),
        Flag(names=("--cells",), metavar="GLOB", help="those of that name or id"),
    ),
    examples=(
        Example(line="bench resume outputs/latest", meaning="what is missing or failed"),
        Example(line="bench resume --only timeout --cells '*fsdp*' outputs/latest"),
    ),
)
