"""The command line: arguments → command → exit code. The only module that ends the program."""

import os
import signal
import sys
import threading
from argparse import Namespace
from collections.abc import Sequence

from benchrunner import __version__
from benchrunner.cli.arguments import parse, split_command
from benchrunner.cli.command import EXIT_OK, Command
from benchrunner.cli.commands import COMMANDS, SUBCOMMANDS
from benchrunner.cli.help import help_text
from benchrunner.cli.overrides import MULTIRUN, split_sweep_files
from benchrunner.cli.streams import LastingStream, lasting_streams
from benchrunner.core.errors import BenchError, ConfigError, UsageError
from benchrunner.core.text import visible

EXIT_USAGE, EXIT_INTERRUPTED = 1, 130

TO_HYDRA = ("--cfg", "-c", "--info", "-i", "--hydra-help", "--shell-completion", "-sc")
"""Flags that Hydra answers itself."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; every expected error is one message on stderr."""
    given = list(sys.argv[1:] if argv is None else argv)
    _hear_signals()
    with lasting_streams() as out:
        code = _answer(given, out)
        out.flush()
        return code


def _answer(given: Sequence[str], out: LastingStream) -> int:
    try:
        _require_working_directory()
        return _dispatch(given, out)
    except BenchError as error:
        print(f"bench: {visible(str(error))}", file=sys.stderr)
        return EXIT_USAGE
    except KeyboardInterrupt:
        print("bench: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED


def _hear_signals() -> None:
    """Who started this may have blocked signals, or ignored the ends of children, and both are inherited."""
    if threading.current_thread() is threading.main_thread():
        if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _require_working_directory() -> None:
    try:
        os.getcwd()
    except OSError as error:
        raise UsageError("the working directory is no longer there; change to another one") from error


def _dispatch(given: Sequence[str], out: LastingStream) -> int:
    if any(one.partition("=")[0] in TO_HYDRA for one in given):
        return _pass_through([one for one in given if one not in MULTIRUN.names])
    name, rest = split_command(given)
    arguments = parse(name, rest)
    code = EXIT_OK if _answered(name, arguments) else _run(COMMANDS[name], arguments)
    if COMMANDS[name].is_answer:
        _require_read(out)
    return code


def _run(command: Command, arguments: Namespace) -> int:
    """Its exit code; a flag that is given as an override (`budget=9m`) is called one."""
    try:
        return command.run(arguments)
    except ConfigError as error:
        meant = f"--{error.key.replace('_', '-')}"
        flag = next((flag for flag in command.flags if meant in flag.names), None)
        if flag is None:
            raise
        raise UsageError(f"{error.key}: no key, but a flag of this command: {flag.spelling}") from error


def _require_read(out: LastingStream) -> None:
    """An answer that cannot be written is an error; a reader who has seen enough (`| head`) is none."""
    out.flush()
    if out.error is not None and not isinstance(out.error, BrokenPipeError):
        raise UsageError(f"stdout cannot be written: {out.error.strerror}")


def _answered(name: str, arguments: Namespace) -> bool:
    """True when the flags ask for the version or the help of a command, which is printed."""
    if arguments.version:
        print(f"benchrunner {__version__}")
    elif arguments.help:
        print(help_text(name))
    return bool(arguments.version or arguments.help)


def _pass_through(given: list[str]) -> int:
    """Let Hydra answer about what follows the subcommand."""
    from benchrunner.config import hydra_app

    given = given[1:] if given[0] in COMMANDS else given
    if any(one.startswith("query=") for one in given):
        print(" ".join(hydra_app.complete(os.environ.get("COMP_LINE", ""), SUBCOMMANDS)))
        return EXIT_OK
    overrides, files = split_sweep_files(given)
    return hydra_app.pass_through(overrides, next(iter(files), None))
