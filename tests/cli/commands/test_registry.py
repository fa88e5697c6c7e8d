"""What is said of the commands holds of each: one module a command, under its name."""

from importlib import import_module
from pkgutil import iter_modules

from benchrunner.cli import commands
from benchrunner.cli.commands import COMMANDS, SUBCOMMANDS, called


def test_every_module_is_a_command_under_its_name():
    modules = {info.name: import_module(f"{commands.__name__}.{info.name}") for info in iter_modules(commands.__path__)}
    assert {name: module.COMMAND for name, module in modules.items()} == COMMANDS


def test_only_run_is_called_without_a_name():
    assert [called(name) for name in COMMANDS] == ["bench", *(f"bench {name}" for name in SUBCOMMANDS)]


def test_two_commands_mean_the_same_by_a_flag():
    flags = [flag for command in COMMANDS.values() for flag in command.flags]
    assert all(one == other for one in flags for other in flags if set(one.names) & set(other.names))
