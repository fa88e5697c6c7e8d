"""`bench list [GROUP …]`: the options of every group with a line on each."""

import shutil
import textwrap
from argparse import Namespace

from benchrunner.cli.command import EXIT_OK, Command, Example, Operands


def list_options(arguments: Namespace) -> int:
    """Print the options of the groups that are named, else of all."""
    from benchrunner.config import hydra_app

    for group in arguments.groups or hydra_app.list_groups():
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


COMMAND = Command(
    run=list_options,
    summary="the options of every group, or of one",
    operands=Operands(name="groups", usage="[GROUP …]"),
    examples=(
        Example(line="bench list strategy", meaning="the values that strategy= takes"),
        Example(line="bench list sweeps", meaning="the declared sweeps"),
    ),
)
