"""The command line: words → command → exit code. The only module that parses arguments or ends the program."""

import argparse
import json
import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from benchrunner import __version__
from benchrunner.cli.help import HELP, command_line, help_text
from benchrunner.core.errors import BenchError, UsageError, did_you_mean

if TYPE_CHECKING:
    from benchrunner.config.hydra_app import Expansion
    from benchrunner.core.paths import SweepPaths
    from benchrunner.launch.job import Launcher
    from benchrunner.plan.plan import Plan
    from benchrunner.run.options import RunOptions
    from benchrunner.run.resume import Selection

EXIT_OK, EXIT_USAGE, EXIT_INTERRUPTED = 0, 1, 130

TO_HYDRA = ("--cfg", "-c", "--info", "-i", "--hydra-help", "--shell-completion", "-sc")
"""Flags that Hydra answers itself."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; every expected error is one message on stderr."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        code = _dispatch(words)
        sys.stdout.flush()
        return code
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return EXIT_USAGE
    except KeyboardInterrupt:
        print("bench: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK


def _dispatch(words: Sequence[str]) -> int:
    if any(word.partition("=")[0] in TO_HYDRA for word in words):
        return _pass_through([word for word in words if word not in MULTIRUN])
    name, rest = split_command(words)
    return COMMANDS[name].run(_parse(name, rest))


def _pass_through(words: list[str]) -> int:
    """Let Hydra answer about the words after the subcommand."""
    from benchrunner.config import hydra_app

    words = words[1:] if words[0] in COMMANDS else words
    if any(word.startswith("query=") for word in words):
        print(" ".join(hydra_app.complete(os.environ.get("COMP_LINE", ""), [key for key in COMMANDS if key != "run"])))
        return EXIT_OK
    files = [Path(word) for word in words if is_sweep_file(word)]
    return hydra_app.pass_through([word for word in words if not is_sweep_file(word)], next(iter(files), None))


def split_command(words: Sequence[str]) -> tuple[str, list[str]]:
    """The subcommand and the words without it; `run` when the first bare word is none.

    A bare word is never a legal override, so there is no ambiguity.

    Raises:
        UsageError: a bare first word that is neither a subcommand nor a sweep file.
    """
    rest = list(words)
    valued = {flag for command in COMMANDS.values() for flag in command.values}
    first = next(
        (word for before, word in zip(["", *rest], rest, strict=False) if _is_bare(word, before, valued)), None
    )
    if first is None or "=" in first or first.startswith(("+", "~")) or is_sweep_file(first):
        return "run", rest
    if first not in COMMANDS or first == "run":
        names = [name for name in COMMANDS if name != "run"]
        hint = did_you_mean(first, names)
        raise UsageError(f"no command {first!r}{hint}; commands: {', '.join(names)}, or key=value words, or FILE.yaml")
    rest.remove(first)
    return first, rest


def _is_bare(word: str, before: str, valued: Collection[str]) -> bool:
    """Whether the word is neither a flag nor the value of the one before it."""
    return not word.startswith("-") and before not in valued


def is_sweep_file(word: str) -> bool:
    """True for `path/x.yaml`."""
    return "=" not in word and word.endswith((".yaml", ".yml"))


# --- arguments -----------------------------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see {self.prog} --help")


def _parse(name: str, rest: Sequence[str]) -> argparse.Namespace:
    """The arguments of one command.

    Raises:
        UsageError: an unknown flag or a missing argument.
    """
    command = COMMANDS[name]
    parser = _Parser(prog=command_line(name), add_help=False, allow_abbrev=False)
    parser.add_argument("-h", "--help", action="store_true")
    parser.add_argument("--version", action="store_true")
    for flags in command.flags:
        parser.add_argument(*flags, action="store_true")
    for flag in command.values:
        parser.add_argument(flag)
    known = [flag for action in parser._actions for flag in action.option_strings]
    for word in rest:
        if word.startswith("-") and word.partition("=")[0] not in known:
            hint = _flag_hint(word.partition("=")[0], known)
            raise UsageError(f"no flag {word!r}{hint}; {command_line(name)} knows {', '.join(known)}")
    parser.add_argument("words", nargs="*")
    arguments = parser.parse_intermixed_args(list(rest))
    arguments.command = name
    return arguments


def _flag_hint(word: str, known: Sequence[str]) -> str:
    """The command that the flag belongs to, else the nearest flag."""
    owners = [
        name for name, command in COMMANDS.items() if any(word in flags for flags in (*command.flags, command.values))
    ]
    return f" (it belongs to {command_line(owners[0])})" if owners else did_you_mean(word, known)


def _answered(arguments: argparse.Namespace) -> bool:
    """True when the flags asked for help or the version, which is printed."""
    if arguments.version:
        print(f"benchrunner {__version__}")
    elif arguments.help:
        print(help_text(arguments.command))
    return bool(arguments.version or arguments.help)


# --- commands ------------------------------------------------------------------------------------------------------


def run(arguments: argparse.Namespace) -> int:
    """`bench [words]`: plan, run every cell, print the tables; the last line is the sweep's directory."""
    if _answered(arguments):
        return EXIT_OK
    from benchrunner.core import faults
    from benchrunner.core.paths import SweepPaths
    from benchrunner.launch.launchers import launcher_for
    from benchrunner.run.options import RunOptions
    from benchrunner.store import plan_file

    faults.parse_fault(os.environ.get(faults.VARIABLE))
    options = RunOptions(budget_s=_budget_s(arguments), infer=not arguments.no_infer)
    made = _make_plan(arguments, launch=True)
    launcher = launcher_for(made.cells[0].cell.config)
    paths = SweepPaths(plan_file.write_plan(made, made.out_dir))
    return _run_and_report(made, paths, launcher, options)


def _budget_s(arguments: argparse.Namespace) -> float | None:
    from benchrunner.run.budget import parse_duration

    return None if arguments.budget is None else parse_duration(arguments.budget)


def resume(arguments: argparse.Namespace) -> int:
    """`bench resume DIR`: run what is missing or failed in a sweep, from its frozen plan."""
    if _answered(arguments):
        return EXIT_OK
    from benchrunner.core.paths import SweepPaths
    from benchrunner.launch.launchers import launcher_for
    from benchrunner.run.options import RunOptions
    from benchrunner.store import plan_file

    directory = _one_directory(arguments)
    made = plan_file.load_plan(directory)
    launcher = launcher_for(made.cells[0].cell.config)
    options = RunOptions(
        resume=True,
        mix=arguments.mix,
        selection=_selection(arguments, made),
        budget_s=_budget_s(arguments),
        infer=not arguments.no_infer,
    )
    return _run_and_report(made, SweepPaths(directory), launcher, options)


RESUMED = ("failed", "timeout", "skipped")
"""Statuses that `resume` runs again."""


def _selection(arguments: argparse.Namespace, made: "Plan") -> "Selection":
    from benchrunner.run.resume import Selection

    statuses = frozenset(filter(None, (arguments.only or "").split(",")))
    if unknown := sorted(statuses - set(RESUMED)):
        hint = did_you_mean(unknown[0], RESUMED)
        raise UsageError(f"--only: {unknown[0]!r} is not one of {', '.join(RESUMED)}{hint}: other verdicts are kept")
    chosen = Selection(cells=tuple(filter(None, [arguments.cells])))
    if not any(chosen.takes(planned, None) for planned in made.cells):
        raise UsageError(f"--cells: no cell's name or id matches {arguments.cells!r}")
    return Selection(statuses=statuses, cells=chosen.cells)


def _run_and_report(made: "Plan", paths: "SweepPaths", launcher: "Launcher", options: "RunOptions") -> int:
    from benchrunner.report.terminal import print_tables
    from benchrunner.report.write import write_report
    from benchrunner.run.sweep import run_plan

    summary = run_plan(made, paths, launcher=launcher, options=options)
    try:
        print_tables(write_report([paths]))
    except OSError as error:
        again = f"bench report {paths.root} makes them again"
        print(f"bench: the tables cannot be written: {error.strerror or error}; {again}", file=sys.stderr)
    print(paths.root, flush=True)
    return summary.exit_code


def plan(arguments: argparse.Namespace) -> int:
    """`bench plan [words]`: every cell with its verdict; nothing is run and nothing is written."""
    if _answered(arguments):
        return EXIT_OK
    from benchrunner.store import plan_file as plans

    made = _make_plan(arguments, launch=False)
    if arguments.json:
        print(json.dumps(plans.plan_document(made), indent=1, allow_nan=False))
    else:
        from benchrunner.report import terminal

        terminal.print_plan(made)
    return EXIT_OK


def _make_plan(arguments: argparse.Namespace, *, launch: bool) -> "Plan":
    from benchrunner.core.paths import config_dir
    from benchrunner.machine import hardware
    from benchrunner.plan.planner import make_plan
    from benchrunner.plan.rules import load_rules

    expansion = _expand(arguments)
    if not expansion.rows:
        raise UsageError("the words leave no cell: a list is empty, or every included row was narrowed away")
    devices = max((row.config["devices"] or 0 for row in expansion.rows), default=0)
    machine = hardware.resolve(expansion.rows[0].config["hardware"], devices or None)
    rules = load_rules(config_dir() / "compat.yaml")
    return make_plan(expansion, machine, rules, launch=launch)


def _expand(arguments: argparse.Namespace) -> "Expansion":
    from benchrunner.config import hydra_app

    files = [word for word in arguments.words if is_sweep_file(word)]
    if len(files) > 1:
        raise UsageError(f"one sweep at a time: {', '.join(files)}")
    words = [word for word in arguments.words if word not in files]
    sweep_file = Path(files[0]) if files else None
    return hydra_app.expand(words, multirun=arguments.multirun, sweep_file=sweep_file)


def report(arguments: argparse.Namespace) -> int:
    """`bench report DIR [DIR …]`: rebuild all tables from plan and records."""
    if _answered(arguments):
        return EXIT_OK
    from benchrunner.core.paths import SweepPaths
    from benchrunner.report import terminal
    from benchrunner.report import write as reports

    if not arguments.words:
        raise UsageError("report needs the directory of a sweep, e.g. bench report outputs/latest")
    sweeps = [SweepPaths(_directory(word)) for word in arguments.words]
    terminal.print_tables(reports.write_report(sweeps))
    return EXIT_OK


def doctor(arguments: argparse.Namespace) -> int:
    """`bench doctor`: what this machine is, and which axis values it can run."""
    if _answered(arguments):
        return EXIT_OK
    from benchrunner.core.faults import FAULTS
    from benchrunner.report import terminal

    _no_words(arguments)
    if arguments.faults:
        for name, line in FAULTS.items():
            print(f"{name:<16}{line}")
    else:
        terminal.print_doctor()
    return EXIT_OK


def list_command(arguments: argparse.Namespace) -> int:
    """`bench list [GROUP]`: the options of every axis with a line on each."""
    if _answered(arguments):
        return EXIT_OK
    from benchrunner.config import hydra_app

    for group in arguments.words or hydra_app.list_groups():
        options = hydra_app.list_options(group)
        width = max((len(option.name) for option in options), default=0)
        print(f"{group}=" if group != "sweeps" else "+sweeps=")
        for option in options:
            print(_option_lines(option.name.ljust(width), option.description))
    return EXIT_OK


def _option_lines(name: str, description: str) -> str:
    """The name and its description, wrapped beside it where that is longer than the line."""
    indent = " " * (len(name) + 4)
    columns = max(shutil.get_terminal_size().columns, len(indent) + 40)
    return textwrap.fill(f"  {name}  {description}".rstrip(), columns, subsequent_indent=indent)


def _no_words(arguments: argparse.Namespace) -> None:
    if arguments.words:
        raise UsageError(f"{arguments.command} takes no words, got {arguments.words[0]!r}")


def _one_directory(arguments: argparse.Namespace) -> Path:
    if len(arguments.words) != 1:
        example = f"bench {arguments.command} outputs/latest"
        raise UsageError(f"{arguments.command} needs the directory of one sweep, e.g. {example}")
    return _directory(arguments.words[0])


def _directory(word: str) -> Path:
    if not Path(word).is_dir():
        raise UsageError(f"{word}: no such directory")
    return Path(word)


@dataclass(frozen=True, slots=True)
class _Command:
    run: Callable[[argparse.Namespace], int]
    flags: tuple[tuple[str, ...], ...] = ()
    values: tuple[str, ...] = ()
    """Flags that take a value."""


MULTIRUN, NO_INFER = ("-m", "--multirun"), ("--no-infer",)

COMMANDS: dict[str, _Command] = {
    "run": _Command(run, (MULTIRUN, NO_INFER), ("--budget",)),
    "plan": _Command(plan, (MULTIRUN, ("--json",))),
    "report": _Command(report),
    "resume": _Command(resume, (("--mix",), NO_INFER), ("--only", "--cells", "--budget")),
    "doctor": _Command(doctor, (("--faults",),)),
    "list": _Command(list_command),
}
"""Subcommand → what runs it and the flags that it knows. `run` is the one without a word."""

assert set(COMMANDS) == set(HELP)
