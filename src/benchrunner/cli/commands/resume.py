"""`bench resume DIR`: run what is missing or failed in a sweep, from its frozen plan."""

from argparse import Namespace
from typing import TYPE_CHECKING

from benchrunner.cli.cluster import DETACH, follow_and_report, require_cluster
from benchrunner.cli.command import JUNIT, ONLY, Command, Example, Flag, Operands
from benchrunner.cli.directories import directory_and_overrides
from benchrunner.cli.overrides import with_settings
from benchrunner.cli.run_and_report import (
    BUDGET,
    EVENTS,
    FAIL_ON,
    NO_INFER,
    REPEATS,
    budget_s,
    events_file,
    fail_on,
    junit_file,
    repeats,
    run_and_report,
)
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

    directory, overrides = directory_and_overrides("resume", arguments.directories)
    made = with_settings(plan_file.load_plan(directory), overrides)
    require_cluster(made.settings.launcher.name, arguments)
    allocator = allocator_for(made.settings.launcher)
    junit = junit_file(arguments)
    options = RunOptions(
        resume=True,
        mix=arguments.mix,
        selection=_selection(arguments, made),
        budget_s=budget_s(arguments),
        infer=not arguments.no_infer,
        fail_on=fail_on(arguments),
        events=events_file(arguments),
        repeats=repeats(arguments),
        overrides=tuple(overrides),
    )
    if allocator is not None:
        return follow_and_report(made, SweepPaths(directory), allocator, options, junit, detach=arguments.detach)
    launcher = LocalLauncher(preload=made.settings.launcher.preload)
    return run_and_report(made, SweepPaths(directory), launcher, options, junit)


def _selection(arguments: Namespace, made: "Plan") -> "Selection":
    from benchrunner.run.resume import Selection

    statuses = frozenset(filter(None, (arguments.only or "").split(",")))
    if unknown := sorted(statuses - set(RESUMED)):
        hint = did_you_mean(unknown[0], RESUMED)
        raise UsageError(f"--only: {unknown[0]!r} is not one of {', '.join(RESUMED)}{hint}: other verdicts are kept")
    chosen = Selection(cells=tuple(filter(None, (arguments.cells or "").split(","))))
    if not any(chosen.takes(planned, None) for planned in made.cells):
        raise UsageError(f"--cells: no cell's name or id matches {arguments.cells!r}")
    return Selection(statuses=statuses, cells=chosen.cells)


COMMAND = Command(
    run=resume,
    is_answer=False,
    summary="run what is missing or failed in a sweep directory",
    details=f"The plan is the one that the directory holds. Verdicts other than {', '.join(RESUMED)} are kept. Settings"
    " of the run (timeout_s, limits.*, retries, brake, exclusive, launcher.partition, …) may be others this time.",
    operands=Operands(name="directories", usage="DIR [key=value …]"),
    flags=(
        Flag(names=("--mix",), help="even on other versions or devices; such records are flagged mixed_environment"),
        BUDGET,
        NO_INFER,
        DETACH,
        FAIL_ON,
        JUNIT,
        EVENTS,
        ONLY,
        Flag(names=("--cells",), metavar="GLOB,…", help="those of such a name or id"),
        REPEATS,
    ),
    examples=(
        Example(line="bench resume outputs/latest", meaning="what is missing or failed"),
        Example(line="bench resume --only timeout --cells '*fsdp*' outputs/latest"),
        Example(line="bench resume outputs/latest timeout_s=7200 brake=null", meaning="with other settings of the run"),
    ),
)
