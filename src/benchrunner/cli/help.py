"""The text of `bench --help` and of `bench COMMAND --help`, from what the commands say of themselves and from conf/."""

import re
import shutil
import textwrap
from collections.abc import Sequence

from benchrunner.cli.command import COMMON_FLAGS, Command, Example, Flag
from benchrunner.cli.commands import COMMANDS, UNNAMED, called
from benchrunner.core.axes import GROUPS
from benchrunner.core.paths import config_dir

WIDTH = 120
"""At most; a narrower terminal has its own."""

LEAST_BESIDE = 32
"""Columns that a meaning needs beside what it explains; with fewer it stands below."""

PURPOSE = (
    "Which combinations of model, workload, strategy, precision, compiler and checkpointing work here, how fast, "
    "in how much memory, and is the number true."
)

KEYS = (
    ("micro_batch_size=N", "samples a device a forward pass; max: the largest that fits, best: the fastest, found by "
                           "probes, a cell each"),
    ("global_batch_size=N", "samples an optimizer step"),
    ("seq_len=N", "tokens a sample"),
    ("devices=N nodes=N", "ranks"),
    ("measure.steps=N", "the measured window"),
    ("timeout_s=S", "limit of a cell"),
    ("limits.measure_s=S", "limit of a phase without progress"),
    ("exclusive=true", "each cell alone on the machine"),
    ("retries=N", "after a failure of infrastructure"),
    ("brake=N", "none like N that failed alike"),
    ("repeats=N", "processes a cell, for comparisons"),
    ("model.num_layers=N", "any key of an option, as GROUP.KEY"),
    ("out_dir=DIR", "where results go (outputs)"),
)  # fmt: skip

EXIT_CODES = (
    ("0", "every cell has an expected verdict (ok, oom, unsupported, skipped) and at least one is ok"),
    ("1", "wrong arguments or a wrong directory; nothing was run"),
    ("2", "some cell failed, timed out or is invalid, the sweep was stopped early, or --fail-on says so"),
    ("3", "a gate says no (compare, verify), or what the sweep expects of its cells (sweep.expect) does not hold"),
    ("4", "nothing failed and no cell is ok"),
    ("129, 130, 143", "interrupted; finished records are kept"),
)

ANSWERED_BY_HYDRA = """\
  answered by Hydra: --cfg job (the configuration), --info, --hydra-help
  completion in bash: eval "$(bench --shell-completion install=bash)\""""


def help_text(name: str) -> str:
    """The help of one command; of the one that needs no name, the help of the program."""
    blocks = _program_blocks() if name == UNNAMED else _command_blocks(name)
    return "\n\n".join(filter(None, blocks))


def _program_blocks() -> list[str]:
    examples = [example for command in COMMANDS.values() for example in command.examples]
    return [
        f"{_usage_lines(UNNAMED)}\n       bench COMMAND …",
        textwrap.fill(PURPOSE, _width()),
        _examples_block(examples),
        _titled("commands (bench COMMAND --help explains the flags of one)", _commands()),
        _titled("groups (bench list GROUP describes the options)", _groups()),
        _titled("keys (bench --cfg job prints all with their values)", KEYS),
        _titled("exit codes", EXIT_CODES),
        f"{_flags_block(COMMANDS[UNNAMED])}\n{ANSWERED_BY_HYDRA}",
    ]


def _command_blocks(name: str) -> list[str]:
    command = COMMANDS[name]
    return [
        _usage_lines(name),
        textwrap.fill(f"{command.summary[0].upper()}{command.summary[1:]}. {command.details}", _width()),
        _flags_block(command),
        _examples_block(command.examples),
    ]


def _usage_lines(name: str) -> str:
    indent = " " * (len("usage: ") + len(called(name)) + 1)
    whole = f"usage: {usage(name)}"
    # a flag and its value stay together: `[--budget TIME]`
    glued = re.sub(r"\[[^\]]*\]", lambda hit: hit[0].replace(" ", "\0"), whole)
    return textwrap.fill(glued, _width(), subsequent_indent=indent, break_on_hyphens=False).replace("\0", " ")


def usage(name: str) -> str:
    """How a command is called, with its flags and operands."""
    command = COMMANDS[name]
    operands = [command.operands.usage] if command.operands else []
    return " ".join([called(name), *(flag.usage for flag in command.flags), *operands])


def _commands() -> list[tuple[str, str]]:
    """Each command with its summary and, in brackets, its flags; those of `bench` have lines of their own."""
    named = {name: [flag.names[0] for flag in command.flags] for name, command in COMMANDS.items() if name != UNNAMED}
    flags = {name: f" ({', '.join(names)})" for name, names in named.items() if names}
    return [(called(name), command.summary + flags.get(name, "")) for name, command in COMMANDS.items()]


def _groups() -> list[tuple[str, str]]:
    return [(f"{group}=", _options(group)) for group in GROUPS]


def _options(group: str) -> str:
    names = sorted(path.stem for path in (config_dir() / group).glob("*.yaml"))
    return " | ".join(names if len(names) <= 8 else [*names[:6], f"… {len(names) - 6} more"])


def _flags_block(command: Command) -> str:
    return _titled("flags", [_flag_line(flag) for flag in (*command.flags, *COMMON_FLAGS)])


def _flag_line(flag: Flag) -> tuple[str, str]:
    return flag.spelling, flag.help


def _examples_block(examples: Sequence[Example]) -> str:
    return _titled("examples", [(example.line, example.meaning) for example in examples])


def _titled(title: str, lines: Sequence[tuple[str, str | None]]) -> str:
    """A heading and lines in two columns; an empty text without lines."""
    return "\n".join([f"{title}:", *_columns(lines)]) if lines else ""


def _columns(lines: Sequence[tuple[str, str | None]]) -> list[str]:
    """Lines of two columns, the second one wrapped; a line without its second may be longer than the first column."""
    widest = max((len(left) for left, right in lines if right), default=0)
    row = _row if widest + 4 + LEAST_BESIDE <= _width() else _row_below
    return [row(left.ljust(widest), right) if right else f"  {left}" for left, right in lines]


def _row(left: str, right: str) -> str:
    return _filled(right, f"  {left}  ", " " * (len(left) + 4))


def _row_below(left: str, right: str) -> str:
    return f"  {left.rstrip()}\n{_filled(right, ' ' * 6, ' ' * 6)}"


def _filled(text: str, first: str, others: str) -> str:
    return textwrap.fill(text, _width(), initial_indent=first, subsequent_indent=others, break_on_hyphens=False)


def _width() -> int:
    """Of the terminal; what is piped is as wide as it may be."""
    return max(40, min(WIDTH, shutil.get_terminal_size((WIDTH, 24)).columns))
