"""`bench doctor`: what this machine is, and which axis values it can run."""

import json
from argparse import Namespace

from benchrunner.cli.command import EXIT_OK, JSON, Command, Flag


def doctor(arguments: Namespace) -> int:
    """Examine this machine and print what was found, or list the faults."""
    if arguments.faults:
        _print_faults()
    elif arguments.json:
        from benchrunner.plan.doctor import diagnosis_document, examine

        print(json.dumps(diagnosis_document(examine()), indent=1, allow_nan=False))
    else:
        from benchrunner.plan.doctor import examine
        from benchrunner.report.terminal import print_doctor

        print_doctor(examine())
    return EXIT_OK


def _print_faults() -> None:
    from benchrunner.core.faults import FAULTS

    width = max(map(len, FAULTS)) + 2
    for name, line in FAULTS.items():
        print(f"{name:<{width}}{line}")


COMMAND = Command(
    run=doctor,
    summary="what this machine is and which options it can run",
    details="An option that works in no combination is listed with the reason, one that needs others with these.",
    flags=(
        JSON,
        Flag(names=("--faults",), help="instead, the faults that BENCH_FAULT can plant"),
    ),
)
