"""`bench work DIR`: take cells of a sweep and run them here, beside others who do the same elsewhere."""

import os
import uuid
from argparse import Namespace
from dataclasses import replace

from benchrunner.cli.command import EXIT_OK, Command, Example, Flag, Operands
from benchrunner.cli.directories import directory_and_overrides
from benchrunner.cli.overrides import with_settings
from benchrunner.cli.run_and_report import BUDGET, NO_INFER, REPEATS, budget_s, repeats
from benchrunner.core.errors import UsageError


def work(arguments: Namespace) -> int:
    """Run cells that nobody else has taken, until there are none; records only, no tables."""
    from benchrunner.core.paths import SweepPaths
    from benchrunner.launch.launchers import job_launcher
    from benchrunner.machine.cores import bind_to_allocation
    from benchrunner.machine.hardware import resolve
    from benchrunner.run.options import RunOptions, Share
    from benchrunner.run.work import work_on
    from benchrunner.store.claims_round import latest_round
    from benchrunner.store.plan_file import load_plan

    directory, overrides = directory_and_overrides("work", arguments.directories)
    paths = SweepPaths(directory)
    share = Share(
        worker=uuid.uuid4().hex[:12],
        round=_number(arguments.round) or latest_round(paths),
        job=os.environ.get("BENCH_JOB", ""),
        time_s=_time_s(arguments),
    )
    options = RunOptions(
        resume=True,
        mix=arguments.mix,
        budget_s=budget_s(arguments),
        infer=not arguments.no_infer,
        repeats=repeats(arguments),
        share=share,
    )
    made = with_settings(load_plan(paths.root), overrides)
    if made.hardware.device_type == "cpu":  # also on a machine that has something better
        bind_to_allocation(os.environ)
        options = replace(options, hardware=resolve(made.cells[0].cell.config.hardware))
    launcher = job_launcher(made.settings.launcher, os.environ)
    summary = work_on(made, paths, launcher=launcher, options=options)
    return EXIT_OK if summary.interrupted_by is None else summary.exit_code


def _number(given: str | None) -> int | None:
    if given is not None and not (given.isdecimal() and int(given) > 0):
        raise UsageError(f"--round: {given!r} is no number from 1 on")
    return None if given is None else int(given)


def _time_s(arguments: Namespace) -> float | None:
    from benchrunner.run.budget import parse_duration

    return None if arguments.time is None else parse_duration(arguments.time, "--time")


COMMAND = Command(
    run=work,
    summary="take cells of a sweep and run them here, beside others who do the same on other machines",
    details=(
        "All must see the directory. It is what an allocation of a cluster runs, and can be started by hand on any "
        "number of machines; bench watch DIR shows how far they have come, bench report DIR makes the tables."
    ),
    operands=Operands(name="directories", usage="DIR [key=value …]"),
    flags=(
        Flag(names=("--time",), metavar="TIME", help="take no cell that is expected to end later than this, e.g. 2h"),
        BUDGET,
        NO_INFER,
        Flag(names=("--mix",), help="even on other versions or devices; such records are flagged mixed_environment"),
        REPEATS,
        Flag(names=("--round",), metavar="N", help="which claims count; the newest ones without this"),
    ),
    examples=(Example(line="bench work outputs/latest", meaning="help to finish a sweep"),),
)
