"""Words → a command and its arguments; what is wrong with them is said before anything happens."""

import re

import pytest

from benchrunner.cli.arguments import parse, split_command
from benchrunner.cli.commands import COMMANDS, SUBCOMMANDS, called
from benchrunner.core.errors import UsageError

FLAGS = [(name, spelling) for name, command in COMMANDS.items() for flag in command.flags for spelling in flag.names]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["pln"], r"no command 'pln' \(did you mean plan\?\)"),
        (["run"], r"no command 'run'"),
        (["RUN"], r"no command 'RUN' \(bench runs what it is given: leave out this word\)"),
        (["PLAN"], r"no command 'PLAN' \(did you mean plan\?\)"),
        (["Explain"], r"no command 'Explain' \(did you mean explain\?\)"),
        (["--jsno"], "no flag '--jsno'"),
        (["plan", "--no-infer"], "it belongs to bench"),
        (["--only=failed"], "it belongs to bench plan and bench resume"),
        (["resume", "--only"], "expected one argument; see bench resume --help$"),
        (["--json"], "it belongs to bench plan"),
        (["plan", "--jsno"], r"did you mean --json\?"),
        (["plan", "--budget", "45m"], r"it belongs to bench and bench resume and bench work\)"),
        (["doctor", "who"], "takes no words"),
    ],
)
def test_wrong_words_are_one_message_and_leave_nothing(refused, words, message):
    refused(words, message)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_flag_of_other_commands_alone_is_said_to_be_theirs(name):
    foreign = {spelling for owner, spelling in FLAGS} - {spelling for owner, spelling in FLAGS if owner == name}
    for spelling in foreign:
        with pytest.raises(UsageError) as refusal:
            parse(name, [spelling])
        owners = " and ".join(called(owner) for owner, one in FLAGS if one == spelling)
        assert f"no flag '{spelling}' (it belongs to {owners}); {called(name)} knows " in str(refusal.value)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_flag_is_parsed_and_absent_ones_are_off(name):
    absent = parse(name, [])
    for flag in COMMANDS[name].flags:
        key = flag.names[-1].lstrip("-").replace("-", "_")
        assert getattr(absent, key) is (None if flag.metavar else False)
        for spelling in flag.names:
            given = parse(name, [f"{spelling}=x"] if flag.metavar else [spelling])
            assert getattr(given, key) == ("x" if flag.metavar else True)


@pytest.mark.parametrize("name", COMMANDS)
def test_an_abbreviated_flag_is_refused(name):
    for flag in COMMANDS[name].flags:
        with pytest.raises(UsageError, match="no flag"):
            parse(name, [flag.names[-1][:-1]])


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_a_command_is_found_among_flags_and_their_values(name):
    assert split_command(["--budget", "45m", "-m", name, "x"]) == (name, ["--budget", "45m", "-m", "x"])


@pytest.mark.parametrize(
    "words", [[], ["-m"], ["a=plan", "plan"], ["x.yaml"], ["+sweeps=smoke"], ["+smoke"], ["~launcher"]]
)
def test_without_a_command_the_words_are_overrides(words):
    assert split_command(words) == ("run", words)


def test_a_command_may_have_another_name():
    assert split_command(["explain", "x"]) == ("show", ["x"])


def test_operands_stand_under_the_name_that_the_command_gives_them():
    assert parse("run", ["a=1", "-m", "b=2"]).overrides == ["a=1", "b=2"]
    assert parse("resume", ["--only", "failed", "DIR"]).directories == ["DIR"]
    assert parse("list", ["model", "strategy"]).groups == ["model", "strategy"]


def test_the_refusal_lists_what_may_be_written():
    with pytest.raises(UsageError) as refusal:
        split_command(["nonsense"])
    assert re.search(rf"commands: {', '.join(SUBCOMMANDS)}, or key=value overrides, or FILE.yaml", str(refusal.value))


@pytest.mark.parametrize("words", [["strategy", "=", "ddp"], ["strategy", "=ddp"], ["-m", "strategy", "=", "ddp"]])
def test_an_override_with_spaces_is_written_together(words):
    with pytest.raises(UsageError, match=r"\(did you mean strategy=ddp\? An override has no spaces\)"):
        split_command(words)


def test_an_override_with_spaces_and_no_value_lacks_one():
    with pytest.raises(UsageError, match=r"\(did you mean strategy=VALUE\? An override has no spaces\)"):
        split_command(["strategy", "="])


@pytest.mark.parametrize(
    ("word", "after", "hint"),
    [
        ("--model", ["debug"], "write model=debug"),
        ("--batch-size=4", [], "write micro_batch_size=4"),
        ("--micro-batch-size", [], "write micro_batch_size=VALUE"),
        ("--seq_len", ["--json", "plan"], "write seq_len=VALUE"),
        ("--jsno", ["x"], "did you mean --json?"),
    ],
)
def test_a_flag_that_is_an_override_is_written_as_one(word, after, hint):
    with pytest.raises(UsageError) as refusal:
        parse("run", [word, *after])
    assert f"no flag {word!r} ({hint}); bench knows " in str(refusal.value)
