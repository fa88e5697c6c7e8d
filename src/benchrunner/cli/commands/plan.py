"""`bench plan [OVERRIDES]`: every cell with its verdict; nothing is run and nothing is written."""

import json
from argparse import Namespace

from benchrunner.cli.command import EXIT_OK, JSON, Command, Example
from benchrunner.cli.overrides import MULTIRUN, OVERRIDES, plan_overrides


def plan(arguments: Namespace) -> int:
    """Plan the overrides and print every cell: as a table, or as one JSON document."""
    made = plan_overrides(arguments, launch=False)
    if arguments.json:
        from benchrunner.store.plan_file import plan_document

        print(json.dumps(plan_document(made), indent=1, allow_nan=False))
    else:
        from benchrunner.report.terminal import print_plan

        print_plan(made)
    return EXIT_OK


COMMAND = Command(
    run=plan,
    summary="list every cell with its verdict, reason, predicted memory and time; runs nothing",
    details="The overrides are those of bench; hardware=NAME plans for a machine that is not here.",
    operands=OVERRIDES,
    flags=(MULTIRUN, JSON),
    examples=(
        Example(
            line="bench plan -m model=llama2-7b strategy=fsdp,ddp",
            meaning="what would run, and why not; needs no GPU",
        ),
        Example(line="bench plan hardware=h200-sxm-141gb devices=8 model=llama2-70b strategy=fsdp"),
    ),
)
