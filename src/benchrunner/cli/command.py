"""What a command is: its summary, the operands and flags that it takes, examples, and the function that runs it.

A command is declared once, in its module of `commands/`; the parser, the help and every hint are derived from it.
"""

from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass

EXIT_OK = 0

EXIT_GATE = 3
"""A gate says no: an expectation of the sweep does not hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """One flag; `arguments` hold it under its last name, without dashes."""

    names: tuple[str, ...]
    """E.g. `-m`, `--multirun`."""
    help: str
    """What it does, in a line."""
    metavar: str | None = None
    """What stands for its value, e.g. `TIME`; None: it takes no value."""

    @property
    def spelling(self) -> str:
        """Every name, and the value: `-m, --multirun`, `--budget TIME`."""
        return " ".join(filter(None, [", ".join(self.names), self.metavar]))

    @property
    def usage(self) -> str:
        """How it is shown among the others of a command: `[-m]`, `[--budget TIME]`."""
        return f"[{' '.join(filter(None, [self.names[0], self.metavar]))}]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operands:
    """The arguments that are no flags."""

    name: str
    """`arguments` hold them as a list of this name."""
    usage: str
    """E.g. `DIR [DIR …]`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A command line and what it does; None where the line says it."""

    line: str
    meaning: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One command of `bench`."""

    run: Callable[[Namespace], int]
    """Runs it with its parsed arguments and returns the exit code. It imports what is heavy when it is called."""
    summary: str
    """What it does, in a line."""
    details: str = ""
    """What its own help says beyond the summary."""
    is_answer: bool = True
    """What it prints is what it is for; False: it does something, which what becomes of stdout does not change."""
    operands: Operands | None = None
    flags: tuple[Flag, ...] = ()
    examples: tuple[Example, ...] = ()


HELP = Flag(names=("-h", "--help"), help="this text")
VERSION = Flag(names=("--version",), help="the version of benchrunner")
JSON = Flag(names=("--json",), help="one JSON document in place of the tables, for programs")
ONLY = Flag(
    names=("--only",),
    metavar="STATUS,…",
    help="these cells alone; resume: failed, timeout, skipped; plan: run, unsupported, skipped",
)
JUNIT = Flag(names=("--junit",), metavar="FILE", help="the verdicts as JUnit XML, for continuous integration")
METRIC = Flag(names=("--metric",), metavar="NAME", help="what is compared: time (usual), memory or compile")
"""Of commands that hold sweeps against each other."""
COMMON_FLAGS = (HELP, VERSION)
"""Flags that every command takes."""
