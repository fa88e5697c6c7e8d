"""The command line → a command and its parsed arguments: the only module that parses them."""

from argparse import ArgumentParser, Namespace
from collections.abc import Collection, Sequence
from typing import NoReturn

from benchrunner.cli.command import COMMON_FLAGS, Flag
from benchrunner.cli.commands import COMMANDS, OTHER_NAMES, SUBCOMMANDS, UNNAMED, called
from benchrunner.cli.overrides import is_sweep_file
from benchrunner.config import synonyms
from benchrunner.config.keys import leaf_types
from benchrunner.core.axes import GROUPS
from benchrunner.core.errors import UsageError, did_you_mean


def split_command(words: Sequence[str]) -> tuple[str, list[str]]:
    """The command and the arguments without it; `run` when the first bare one is none.

    A bare argument is never a legal override, so there is no ambiguity.

    Raises:
        UsageError: a bare first argument that is neither a subcommand nor a sweep file.
    """
    rest = list(words)
    valued = {name for command in COMMANDS.values() for flag in command.flags if flag.metavar for name in flag.names}
    first = next(
        (word for before, word in zip(["", *rest], rest, strict=False) if _is_bare(word, before, valued)), None
    )
    if first is None or "=" in first or first.startswith(("+", "~")) or is_sweep_file(first):
        return UNNAMED, rest
    command = OTHER_NAMES.get(first, first)
    if command not in SUBCOMMANDS:
        _refuse_unknown_flags(UNNAMED, words)
        commands = f"{', '.join(SUBCOMMANDS)}, or key=value overrides, or FILE.yaml"
        raise UsageError(f"no command {first!r}{_meant(first, rest)}; commands: {commands}")
    rest.remove(first)
    return command, rest


SAID_ELSEWHERE = {
    "run": "bench runs what it is given: leave out this word",
    "help": "write bench --help, or bench COMMAND --help",
    "init": "nothing has to be set up: bench +sweeps=smoke",
    "sweep": "write bench +sweeps=NAME, or bench FILE.yaml",
    "diff": "write bench compare BASE NEW",
    "tune": "write bench plan … --maximise tokens/s",
}
"""Command of other tools → what it is here."""


def _meant(first: str, words: Sequence[str]) -> str:
    """What a bare word means that is no command: a sweep, an option, an override with spaces, a misspelt command."""
    from benchrunner.config.hydra_app import meant_by_bare_word

    name = first.lower()
    if name in SAID_ELSEWHERE:
        return f" ({SAID_ELSEWHERE[name]})"
    after = [*words[words.index(first) + 1 :], "", ""]
    if after[0].startswith("="):
        value = after[0].lstrip("=") or after[1] or "VALUE"
        return f" (did you mean {first}={value}? An override has no spaces)"
    return meant_by_bare_word(first) or did_you_mean(name, (*SUBCOMMANDS, *OTHER_NAMES))


def _is_bare(word: str, before: str, valued: Collection[str]) -> bool:
    """Whether the word is neither a flag nor the value of the one before it."""
    return not word.startswith("-") and before not in valued


def parse(name: str, words: Sequence[str]) -> Namespace:
    """The arguments of the command `name`: its flags, `help`, `version`, and its operands under their name.

    Raises:
        UsageError: an unknown flag, a flag without its value, or an operand of a command that takes none.
    """
    _refuse_unknown_flags(name, words)
    arguments = _parser(name).parse_intermixed_args(list(words))
    is_question = arguments.help or arguments.version
    if COMMANDS[name].operands is None and arguments.operands and not is_question:
        raise UsageError(f"{name} takes no words, got {arguments.operands[0]!r}")
    return arguments


class _Parser(ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see {self.prog} --help")


def _parser(name: str) -> _Parser:
    parser = _Parser(prog=called(name), add_help=False)
    for flag in _flags(name):
        parser.add_argument(*flag.names, action="store" if flag.metavar else "store_true")
    operands = COMMANDS[name].operands
    parser.add_argument(operands.name if operands else "operands", nargs="*")
    return parser


def _flags(name: str) -> tuple[Flag, ...]:
    return (*COMMON_FLAGS, *COMMANDS[name].flags)


def _refuse_unknown_flags(name: str, words: Sequence[str]) -> None:
    """Before argparse does, which knows nothing of the other commands."""
    known = [spelling for flag in _flags(name) for spelling in flag.names]
    for word in words:
        given = word.partition("=")[0]
        if given.startswith("-") and given not in known:
            rest = list(words)[list(words).index(word) + 1 :]
            hint = _flag_hint(given) or _override_hint(word, rest)
            raise UsageError(f"no flag {word!r}{hint}; {called(name)} knows {', '.join(known)}")


def _flag_hint(word: str) -> str:
    """The commands that the flag belongs to, else what it means in other tools."""
    owners = [name for name, command in COMMANDS.items() if any(word in flag.names for flag in command.flags)]
    if owners:
        return f" (it belongs to {' and '.join(map(called, owners))})"
    meant = synonyms.flag_meant(word)
    return f" ({meant})" if meant else ""


def _override_hint(word: str, after: Sequence[str]) -> str:
    """`--model x` is written `model=x`; else the nearest flag."""
    name, _, value = word.lstrip("-").partition("=")
    key = name.replace("-", "_")
    key = key if key in GROUPS or key in leaf_types() else synonyms.key_meant(key) or ""
    value = value or next((one for one in after[:1] if not one.startswith("-")), "VALUE")
    flags = [flag for command in COMMANDS.values() for one in command.flags for flag in one.names]
    return f" (write {key}={value})" if key else did_you_mean(word, flags)
