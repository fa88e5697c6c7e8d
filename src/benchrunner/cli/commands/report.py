"""`bench report DIR [DIR …]`: rebuild all tables from plan and records."""

from argparse import Namespace

from benchrunner.cli.command import EXIT_OK, Command, Example, Operands
from benchrunner.cli.directories import sweep_directories
from benchrunner.cli.run_and_report import show_report


def report(arguments: Namespace) -> int:
    """Write and print the tables: of one sweep into its directory, of several into a new one."""
    from benchrunner.core.paths import SweepPaths

    sweeps = [SweepPaths(directory) for directory in sweep_directories("report", arguments.directories)]
    show_report(sweeps)
    return EXIT_OK


COMMAND = Command(
    run=report,
    summary="rebuild all tables from the plan and records of one or more sweep directories",
    details="A sweep may be half-finished. The tables of several go into <out_dir>/merged/.",
    operands=Operands(name="directories", usage="DIR [DIR …]"),
    examples=(Example(line="bench report outputs/latest", meaning="the tables again"),),
)
