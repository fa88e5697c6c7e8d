"""The tables of sweeps as `bench report` makes and writes them, nothing printed."""

from benchrunner.report.write import make_report, write_tables


def write_report(sweeps, out=None, layout=None):
    """The tables, written where they belong or into `out`."""
    tables, target = make_report(sweeps, layout)
    write_tables(tables, out or target)
    return tables
