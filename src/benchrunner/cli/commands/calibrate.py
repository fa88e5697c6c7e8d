"""`bench calibrate DIR [DIR …]`: efficiencies and additive terms of the prediction, fitted to measured sweeps."""

from argparse import Namespace

from benchrunner.cli.command import EXIT_OK, Command, Example, Operands
from benchrunner.cli.directories import sweep_directories


def calibrate(arguments: Namespace) -> int:
    """Print the lines that a device's file in conf/hardware takes; nothing is written."""
    from benchrunner.core.errors import UsageError
    from benchrunner.core.paths import SweepPaths
    from benchrunner.machine.hardware import as_filed
    from benchrunner.plan.calibrate import Sample, calibrate
    from benchrunner.store.plan_file import load_plan
    from benchrunner.store.records import read_records

    paths = [SweepPaths(directory) for directory in sweep_directories("calibrate", arguments.directories)]
    plans = [(load_plan(one.root), one) for one in paths]
    names = {plan.hardware.name for plan, _ in plans}
    if len(names) > 1:
        raise UsageError(f"calibrate: the sweeps are of several devices: {', '.join(sorted(names))}")
    samples = []
    for plan, place in plans:
        records, _ = read_records(plan.cells, place)
        samples += [
            Sample(cell=one.cell, record=records[one.cell.slug]) for one in plan.cells if one.cell.slug in records
        ]
    first = plans[0][0]
    values = calibrate(samples, as_filed(first.hardware))
    print(f"# conf/hardware/{first.hardware.name}.yaml")
    print("calibration: {" + ", ".join(f"{name}: {_short(value)}" for name, value in values.items()) + "}")
    sweeps = ", ".join(f"{plan.sweep_name} of {plan.created_at}" for plan, _ in plans)
    print(
        f"calibrated: {len(samples)} cells of {sweeps}; benchrunner {first.benchrunner}, torch {first.hardware.torch}"
    )
    return EXIT_OK


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 1000 else f"{value:.4g}"


COMMAND = Command(
    run=calibrate,
    summary="fit the efficiencies and additive terms of predictions to measured sweeps, as lines for conf/hardware",
    details="Every cell that is ok and has steps counts. Read the lines, then put them into the device's file.",
    operands=Operands(name="directories", usage="DIR [DIR …]"),
    examples=(Example(line="bench calibrate outputs/latest"),),
)
