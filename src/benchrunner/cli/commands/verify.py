"""`bench verify DIR`: hold a sweep to its lock; unexpected failures, unexpected passes and missing cells fail."""

from argparse import Namespace
from pathlib import Path

from benchrunner.cli.command import EXIT_GATE, EXIT_OK, Command, Example, Flag, Operands
from benchrunner.cli.commands.lock import LOCK, update_lock
from benchrunner.cli.directories import sweep_directory
from benchrunner.cli.gate_files import GATE_FLAGS, show_findings


def verify(arguments: Namespace) -> int:
    """Print every deviation and the verdict; with `--update` take them into the lock."""
    from benchrunner.compare import verify_report
    from benchrunner.compare.lock_file import lock_of, lock_path, read_lock
    from benchrunner.compare.side import read_side
    from benchrunner.compare.verify import verify as hold
    from benchrunner.core.paths import SweepPaths

    side = read_side(SweepPaths(sweep_directory("verify", arguments.directories)))
    path = Path(arguments.lock) if arguments.lock else lock_path(side)
    found = hold(side, read_lock(path), str(path))
    show_findings(
        arguments,
        text=verify_report.to_text(found),
        markdown=verify_report.to_markdown(found),
        document=verify_report.to_document(found),
        junit=lambda: verify_report.to_xml(found),
    )
    if arguments.update:
        update_lock(path, lock_of(side))
    return EXIT_OK if found.has_passed or arguments.update else EXIT_GATE


COMMAND = Command(
    run=verify,
    summary="hold a sweep to its lock: exit 3 on an unexpected failure, an unexpected pass or a missing cell",
    details="A cell that the lock does not have, and another reason for not working, are deviations too.",
    operands=Operands(name="directories", usage="DIR"),
    flags=(
        LOCK,
        Flag(names=("--update",), help="take what was found into the lock, as bench lock DIR does"),
        *GATE_FLAGS,
    ),
    examples=(Example(line="bench verify outputs/latest", meaning="is every cell as its lock expects?"),),
)
