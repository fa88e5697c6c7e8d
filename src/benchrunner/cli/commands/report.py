"""`bench report DIR [DIR …]`: rebuild all tables from plan and records."""

from argparse import Namespace

from benchrunner.cli.command import EXIT_OK, Command, Example, Flag, Operands
from benchrunner.cli.directories import sweep_directories
from benchrunner.cli.run_and_report import JUNIT, write_junit


def report(arguments: Namespace) -> int:
    """Write and print the tables: of one sweep into its directory, of several into a new one."""
    from benchrunner.core.paths import SweepPaths
    from benchrunner.report.terminal import print_tables
    from benchrunner.report.write import write_report

    sweeps = [SweepPaths(directory) for directory in sweep_directories("report", arguments.directories)]
    tables = write_report(sweeps, layout=arguments.layout)
    print_tables(tables)
    write_junit(tables, arguments.junit)
    return EXIT_OK


LAYOUT = Flag(
    names=("--layout",),
    metavar="NAME",
    help="print a published table first, in its own layout and beside its values",
)

COMMAND = Command(
    run=report,
    summary="rebuild all tables from the plan and records of one or more sweep directories",
    details="A sweep may be half-finished. The tables of several go into <out_dir>/merged/.",
    operands=Operands(name="directories", usage="DIR [DIR …]"),
    flags=(LAYOUT, JUNIT),
    examples=(
        Example(line="bench report outputs/latest", meaning="the tables again"),
        Example(line="bench report outputs/mine --layout litgpt-train", meaning="beside the values of Lit-GPT's table"),
    ),
)
