"""Run a plan and show its tables: the second half of `bench` and of `bench resume`, and the flags that both take."""

import os
import shlex
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchrunner.cli.command import EXIT_GATE, EXIT_OK, Flag
from benchrunner.cli.gate_files import add_to_job_summary
from benchrunner.core.errors import UsageError, did_you_mean
from benchrunner.core.record import PHASES, STATUSES

if TYPE_CHECKING:
    from benchrunner.core.paths import SweepPaths
    from benchrunner.launch.job import Launcher
    from benchrunner.plan.plan import Plan
    from benchrunner.report.content import Tables
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


FAIL_ON = Flag(
    names=("--fail-on",),
    metavar="STATUS,…",
    help="exit 2 also when a cell has one of these statuses or reason codes, e.g. oom,skipped.devices",
)
EVENTS = Flag(names=("--events",), metavar="FILE", help="add a line of JSON to FILE when a cell starts or ends")
REPEATS = Flag(
    names=("--repeats",),
    metavar="N",
    help="until each has been measured in N processes, by the same commit of this program",
)
CODES = ("oom", "rule", "runtime", "missing", "validity", "timeout", "failed", "skipped")
"""What reason codes begin with."""
SKIPS = (
    "brake", "budget", "cancelled", "devices", "disk", "excluded", "interrupted", "no_prediction", "not_repeated",
    "predict_only", "predicted_oom", "preempted", "time_limit",
)  # fmt: skip
"""Why a cell is skipped."""
ENDINGS = {"skipped": SKIPS, "timeout": PHASES}
"""Beginning of a reason code → what may follow it, where that is no name of a library, a rule or a check."""


def fail_on(arguments: Namespace) -> tuple[str, ...]:
    """The statuses and reason codes of `--fail-on`.

    Raises:
        UsageError: one is neither.
    """
    given = tuple(filter(None, (arguments.fail_on or "").split(",")))
    statuses = [status for status in STATUSES if status != "ok"]
    for word in given:
        beginning, _, ending = word.partition(".")
        if word not in statuses and not (beginning in CODES and ending):
            hint = did_you_mean(word, statuses)
            raise UsageError(f"--fail-on: {word!r} is neither a status ({', '.join(statuses)}) nor a reason code{hint}")
        if ending and beginning in ENDINGS and ending not in ENDINGS[beginning]:
            codes = [f"{beginning}.{one}" for one in ENDINGS[beginning]]
            raise UsageError(f"--fail-on: no cell ends as {word!r}{did_you_mean(word, codes)}: {', '.join(codes)}")
    return given


def budget_s(arguments: Namespace) -> float | None:
    """The seconds of `--budget`; None where it was not given.

    Raises:
        UsageError: its value is no duration.
    """
    from benchrunner.run.budget import parse_duration

    return None if arguments.budget is None else parse_duration(arguments.budget)


def repeats(arguments: Namespace) -> int | None:
    """The processes of `--repeats`; None where it was not given.

    Raises:
        UsageError: it is no number from 1 on.
    """
    if arguments.repeats is None:
        return None
    if not arguments.repeats.isdecimal() or not int(arguments.repeats):
        raise UsageError(f"--repeats: {arguments.repeats!r} is no number of processes such as 3")
    return int(arguments.repeats)


def events_file(arguments: Namespace) -> Path | None:
    """The file of `--events`.

    Raises:
        UsageError: its directory does not exist.
    """
    _require_folder("events", arguments.events)
    return Path(arguments.events) if arguments.events else None


def junit_file(arguments: Namespace) -> str | None:
    """The file of `--junit`, of a command that takes long.

    Raises:
        UsageError: its directory does not exist.
    """
    _require_folder("junit", arguments.junit)
    return arguments.junit or None


def _require_folder(flag: str, file: str | None) -> None:
    if file and not os.path.isdir(Path(file).absolute().parent):
        raise UsageError(f"--{flag}: {file}: no such directory")


def write_junit(tables: "Tables", file: str | None) -> None:
    """The verdicts for continuous integration, where a file was named.

    Raises:
        UsageError: it cannot be written.
    """
    from benchrunner.core.files import write_output
    from benchrunner.report.junit import to_junit

    if file is None:
        return
    try:
        write_output(Path(file), to_junit(tables))
    except OSError as error:
        raise UsageError(f"--junit: cannot write {file}: {error.strerror or error}") from error


def next_steps(paths: "SweepPaths", summary: "ExitSummary") -> str:
    """Where the page is, and the commands that help most now."""
    folder, counts = shlex.quote(str(paths.root)), summary.counts
    broke = any(counts.get(status) for status in STATUSES if status not in ("ok", "skipped", "unsupported"))
    steps = {
        "the rest": f"bench resume {folder}" if summary.stopped_by or summary.interrupted_by else None,
        "what broke": f"bench show {folder}" if broke else None,
        "later": f"bench compare {folder} NEW says what became slower or works no more" if counts.get("ok") else None,
    }
    return "\n".join([f"report: {paths.html}", *(f"{what}: {step}" for what, step in steps.items() if step)])


def run_and_report(
    plan: "Plan", paths: "SweepPaths", launcher: "Launcher", options: "RunOptions", junit: str | None = None
) -> int:
    """Run every cell that is left, print the tables and, as the last line, the directory; the exit code."""
    from benchrunner.run.sweep import run_plan

    return report(paths, run_plan(plan, paths, launcher=launcher, options=options), junit)


def report(paths: "SweepPaths", summary: "ExitSummary", junit: str | None = None) -> int:
    """Print the tables of a run that has ended and, as the last line, the directory; the exit code.

    Tables that cannot be made are named on stderr and change nothing else.
    """
    violated: list[str] = []
    try:
        tables = show_report([paths])
        violated = tables.violated
        _tell_others(tables, junit)
    except Exception as error:  # whatever it is, the sweep has run, and its exit code says how
        again = f"bench report {paths.root} makes them again"
        print(f"bench: the tables cannot be made: {type(error).__name__}: {error}; {again}", file=sys.stderr)
    print(next_steps(paths, summary), file=sys.stderr)
    for name in violated:
        print(f"bench: the sweep expects otherwise: {name}", file=sys.stderr)
    print(paths.root, flush=True)
    return EXIT_GATE if violated and summary.exit_code == EXIT_OK else summary.exit_code


def _tell_others(tables: "Tables", junit: str | None) -> None:
    """The job's summary and JUnit; what cannot be written is said, and keeps nothing else from being written."""
    from benchrunner.report.job_summary import job_summary

    try:
        add_to_job_summary(job_summary(tables))
    except OSError as error:
        print(f"bench: the job's summary cannot be written: {error}", file=sys.stderr)
    try:
        write_junit(tables, junit)
    except UsageError as error:
        print(f"bench: {error}", file=sys.stderr)


def show_report(sweeps: "Sequence[SweepPaths]", layout: str | None = None) -> "Tables":
    """Write the tables of these sweeps, print and return them; a place that cannot be written costs the files alone.

    Logs that a killed `bench` left as they were are scrubbed before.

    Raises:
        SweepDirError: a directory that is no sweep.
        ConfigError: no such layout.
    """
    from benchrunner.report.terminal import print_tables
    from benchrunner.report.write import make_report, write_tables
    from benchrunner.run.log_cleaner import clean_what_was_left

    tables, target = make_report(sweeps, layout)
    for paths in sweeps:
        clean_what_was_left(paths)
    try:
        write_tables(tables, target)
    except OSError as error:
        print(f"bench: the tables cannot be written into {target.root}: {error.strerror or error}", file=sys.stderr)
    print_tables(tables)
    return tables
