"""The help names every command, flag, group and example, and all of it is true."""

import re
import shlex

import pytest

from benchrunner.cli.arguments import parse, split_command
from benchrunner.cli.command import COMMON_FLAGS, Command, Flag
from benchrunner.cli.commands import COMMANDS, SUBCOMMANDS
from benchrunner.cli.help import KEYS, help_text, usage
from benchrunner.cli.main import main
from benchrunner.core.axes import GROUPS
from benchrunner.core.paths import config_dir

EXAMPLES = [(name, example.line) for name, command in COMMANDS.items() for example in command.examples]


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")


def section(text, title):
    """The block of a help that begins so."""
    return next(block for block in text.split("\n\n") if block.startswith(title))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_explained(name):
    assert COMMANDS[name].summary in help_text("run")
    assert usage(name) in " ".join(help_text(name).split())


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_names_each_of_its_flags_once(name):
    lines = [line.strip() for line in section(help_text(name), "flags:").splitlines() if line.startswith("  -")]
    flags = (*COMMANDS[name].flags, *COMMON_FLAGS)
    assert [line.partition("  ")[0] for line in lines] == [flag.spelling for flag in flags]
    assert [line.partition("  ")[2].strip() for line in lines] == [flag.help for flag in flags]
    assert all(usage(name).count(flag.usage) == 1 for flag in COMMANDS[name].flags)
    operands = COMMANDS[name].operands
    assert usage(name).endswith(f" {operands.usage}" if operands else "]" if COMMANDS[name].flags else name)


@pytest.mark.parametrize("name", COMMANDS)
def test_on_a_narrow_terminal_nothing_but_commands_to_copy_is_wider(name, monkeypatch):
    monkeypatch.setenv("COLUMNS", "72")
    text, commands = help_text(name), {f"  {line}" for _, line in EXAMPLES}
    assert [line for line in text.splitlines() if len(line) > 72 and line not in commands] == []
    words = " ".join(text.split())
    monkeypatch.setenv("COLUMNS", "120")
    assert words == " ".join(help_text(name).split()), "the same is said"


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_the_programs_help_names_each_flag_of_a_command_once(name):
    commands = " ".join(section(help_text("run"), "commands ").split())
    [line] = re.findall(rf"bench {name} .*?(?= bench \w+ |$)", commands.partition(": ")[2])
    for flag in COMMANDS[name].flags:
        assert len(re.findall(rf"(?<!\S)\(?{flag.names[0]}(?=[,)])", line)) == 1


def test_a_sentence_opens_the_help_of_a_command():
    paragraph = " ".join(help_text("plan").split("\n\n")[1].split())
    assert paragraph.startswith("List every cell with its verdict, reason, predicted memory and time; runs nothing. ")


def test_no_help_is_wider_than_a_page_although_summaries_may_be(monkeypatch):
    long = Command(run=lambda _: 0, summary="word " * 40, flags=(Flag(names=("--no-use",), help="none " * 40),))
    monkeypatch.setitem(COMMANDS, "list", long)
    for name in COMMANDS:
        assert max(map(len, help_text(name).splitlines())) <= 120
    assert [block.partition(":")[0] for block in help_text("list").split("\n\n")[2:]] == ["flags"], "it has no examples"


def test_the_programs_help_teaches_axes_and_exit_codes():
    text = help_text("run")
    assert all(f"{group}=" in text for group in GROUPS)
    assert "fsdp_stage3" in text
    assert "exit codes" in text
    assert max(map(len, text.splitlines())) <= 120


@pytest.mark.parametrize(("name", "line"), EXAMPLES)
def test_every_example_is_of_its_command_and_in_both_helps(name, line):
    command, rest = split_command(shlex.split(line)[1:])
    assert command == name
    parse(command, rest)
    assert line in section(help_text(name), "examples:")
    assert line in help_text("run")


@pytest.mark.parametrize("line", [line for name, line in EXAMPLES if name in ("run", "plan")])
def test_every_example_can_be_planned(line, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, rest = split_command(shlex.split(line)[1:])
    as_document = [] if "--explain" in rest else ["--json"]  # which is in sentences
    assert main(["plan", *as_document, *rest]) == 0
    assert capsys.readouterr().out.startswith("{") or not as_document


@pytest.mark.parametrize("group", GROUPS)
def test_a_group_has_its_options_or_the_first_six_and_how_many_more(group):
    names = sorted(path.stem for path in (config_dir() / group).glob("*.yaml"))
    shown = names if len(names) <= 8 else [*names[:6], f"… {len(names) - 6} more"]
    line = " ".join(section(help_text("run"), "groups (bench list").split())
    assert f" {group}= {' | '.join(shown)}" in line


def test_the_keys_that_people_need_are_explained():
    lines = section(help_text("run"), "keys (bench --cfg job prints all").splitlines()[1:]
    written = [line.split("  ")[1] for line in lines if line[2] != " "]
    assert written == [key for key, _ in KEYS]


def test_what_is_explained_goes_on_below_its_beginning(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    first, *others = section(help_text("resume"), "flags:").splitlines()[1:]
    indent = " " * first.index("even on")
    assert all(line.startswith(("  -", f"{indent}")) and line[len(indent)] != " " for line in others)
    assert any(line.startswith(indent) for line in others)


def test_usage_is_indented_below_its_command_and_keeps_flags_whole(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    first, *others = help_text("resume").split("\n\n")[0].splitlines()
    assert first.startswith("usage: bench resume [--mix] [--budget TIME]") and len(others) > 1
    assert all(re.match(r" {20}(\[--|DIR)", line) for line in others)


def test_where_columns_find_no_room_the_second_is_below_the_first(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    lines = section(help_text("resume"), "flags:").splitlines()
    assert lines[1] == "  --mix" and all(re.match(r" {6}\w", line) for line in lines[2:4])
    monkeypatch.setenv("COLUMNS", "120")
    assert re.match(r"  --mix {2,}even on ", section(help_text("resume"), "flags:").splitlines()[1])
