"""One module a command, under its name: its summary, flags, examples and function. `COMMANDS` is the list of them."""

from benchrunner.cli.command import Command
from benchrunner.cli.commands import (
    calibrate,
    compare,
    doctor,
    lock,
    plan,
    report,
    resume,
    run,
    show,
    verify,
    watch,
    work,
)
from benchrunner.cli.commands import list as list_options

COMMANDS: dict[str, Command] = {
    "run": run.COMMAND,
    "plan": plan.COMMAND,
    "report": report.COMMAND,
    "resume": resume.COMMAND,
    "watch": watch.COMMAND,
    "work": work.COMMAND,
    "show": show.COMMAND,
    "compare": compare.COMMAND,
    "lock": lock.COMMAND,
    "verify": verify.COMMAND,
    "calibrate": calibrate.COMMAND,
    "doctor": doctor.COMMAND,
    "list": list_options.COMMAND,
}
"""Name → command, in the order of the help."""

UNNAMED = "run"
"""The command that is meant where none is named: `bench key=value`."""

OTHER_NAMES = {"explain": "show"}
"""What a command is called, too."""

SUBCOMMANDS = tuple(name for name in COMMANDS if name != UNNAMED)
"""The names that may be written."""


def called(name: str) -> str:
    """How a command is called, e.g. `bench plan`."""
    return "bench" if name == UNNAMED else f"bench {name}"
