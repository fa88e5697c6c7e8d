"""`bench report DIR [DIR …]`: rebuild all tables from plan and records."""

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from benchrunner.cli.command import EXIT_OK, JUNIT, METRIC, Command, Example, Flag, Operands
from benchrunner.cli.directories import sweep_directories
from benchrunner.cli.gate_files import write_file
from benchrunner.cli.run_and_report import show_report, write_junit

if TYPE_CHECKING:
    from benchrunner.compare.metric import Metric
    from benchrunner.core.paths import SweepPaths


def report(arguments: Namespace) -> int:
    """Write and print the tables: of one sweep into its directory, of several into a new one."""
    from benchrunner.compare.metric import metric_named
    from benchrunner.core.paths import SweepPaths

    metric = metric_named(arguments.metric or "time")
    sweeps = [SweepPaths(directory) for directory in sweep_directories("report", arguments.directories)]
    write_junit(show_report(sweeps, arguments.layout), arguments.junit)
    _show_history(sweeps, metric, arguments.history)
    return EXIT_OK


def _show_history(sweeps: "list[SweepPaths]", metric: "Metric", file: str | None) -> None:
    """A metric over time, where several sweeps have measured the same cells."""
    from benchrunner.compare.history import LEAST_SWEEPS, history_csv, history_text, make_tracks
    from benchrunner.compare.side import read_side

    tracks = make_tracks([read_side(paths) for paths in sweeps], metric) if len(sweeps) >= LEAST_SWEEPS else []
    if tracks:
        print(history_text(tracks, metric))
    if file is not None:
        write_file(Path(file), history_csv(tracks, metric))


LAYOUT = Flag(
    names=("--layout",),
    metavar="NAME",
    help="print a published table first, in its own layout and beside its values",
)

COMMAND = Command(
    run=report,
    summary="rebuild all tables from the plan and records of one or more sweep directories",
    details="A sweep may be half-finished. The tables of several go into <out_dir>/merged/. Of cells that three"
    " or more have measured, a metric is shown over time, with the points at which it changed.",
    operands=Operands(name="directories", usage="DIR [DIR …]"),
    flags=(
        LAYOUT,
        JUNIT,
        METRIC,
        Flag(names=("--history",), metavar="FILE", help="of sweeps over time: every point, as CSV"),
    ),
    examples=(
        Example(line="bench report outputs/latest", meaning="the tables again"),
        Example(line="bench report outputs/nightly/*", meaning="and what changed from when on, by commit"),
        Example(line="bench report outputs/mine --layout litgpt-train", meaning="beside the values of Lit-GPT's table"),
    ),
)
