"""`bench lock DIR`: write the status that is expected of every cell into a file beside the sweep's."""

import os
import sys
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from benchrunner.cli.command import EXIT_OK, Command, Example, Flag, Operands
from benchrunner.cli.directories import sweep_directory

if TYPE_CHECKING:
    from benchrunner.compare.lock_file import LockFile

LOCK = Flag(names=("--lock",), metavar="FILE", help="the lock; usual: beside the sweep's file, as sweeps/NAME.lock")


def lock(arguments: Namespace) -> int:
    """Write the lock and show what has changed in it."""
    from benchrunner.compare.lock_file import doubts, lock_of, lock_path
    from benchrunner.compare.side import read_side
    from benchrunner.core.paths import SweepPaths

    side = read_side(SweepPaths(sweep_directory("lock", arguments.directories)))
    update_lock(Path(arguments.lock) if arguments.lock else lock_path(side), lock_of(side))
    for doubt in doubts(side):
        print(f"note: {doubt}", file=sys.stderr)
    return EXIT_OK


def update_lock(path: Path, made: "LockFile") -> None:
    """Write a lock, print the diff, and as the last line the file."""
    from benchrunner.compare.lock_file import write_lock

    is_new = not os.path.exists(path)
    diff = write_lock(path, made)
    print(
        "\n".join(diff)
        if diff and not is_new
        else f"{len(made['cells'])} cells, {'all new' if is_new else 'as before'}"
    )
    print(path)


COMMAND = Command(
    run=lock,
    summary="write the status and reason code that are expected of every cell into a reviewable file",
    details="The sweep must be finished. Again: the file is updated and the difference shown.",
    operands=Operands(name="directories", usage="DIR"),
    flags=(LOCK,),
    examples=(
        Example(line="bench lock outputs/latest", meaning="what this sweep gave is what is expected from now on"),
    ),
)
