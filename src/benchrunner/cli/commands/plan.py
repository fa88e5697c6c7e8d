"""`bench plan [OVERRIDES]`: every cell with its verdict; nothing is run and nothing is written."""

import json
import re
from argparse import Namespace
from dataclasses import replace
from typing import TYPE_CHECKING

from benchrunner.cli.command import EXIT_OK, JSON, ONLY, Command, Example, Flag
from benchrunner.cli.overrides import MULTIRUN, OVERRIDES, plan_overrides
from benchrunner.core.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from benchrunner.plan.plan import Plan

SEARCHED = {
    "strategy": "single,ddp,fsdp_stage2,fsdp_stage3",
    "activation_checkpointing": "none,selective,full",
    "micro_batch_size": "1,2,4,8,16,32,64",
}
"""What `--maximise` varies where no override says."""

NUM_BEST = 10

VERDICTS = ("run", "unsupported", "skipped")


def plan(arguments: Namespace) -> int:
    """Plan the overrides and print every cell: as a table, or as one JSON document."""
    if arguments.maximise:
        return _maximise(arguments)
    if arguments.within:
        raise UsageError("--within belongs to --maximise; memory_limit_gib=80 plans for a smaller card")
    if arguments.explain:
        _refuse_beside(arguments, "--explain is of one cell, in sentences", "json", "only")
    only = _verdicts(arguments.only)
    made = plan_overrides(arguments, launch=False)
    if arguments.json:
        _print_json(replace(made, cells=[one for one in made.cells if one.verdict in only]))
    elif arguments.explain:
        from benchrunner.plan.explain import explain, find_cell
        from benchrunner.report.terminal import print_explanation

        planned = find_cell(made, arguments.explain)
        print_explanation(planned, explain(planned, made.hardware))
    else:
        from benchrunner.report.terminal import print_plan

        print_plan(made, only)
    return EXIT_OK


def _refuse_beside(arguments: Namespace, what: str, *others: str) -> None:
    if other := next((flag for flag in others if getattr(arguments, flag)), None):
        raise UsageError(f"{what}, and --{other} asks for something else: one at a time")


def _maximise(arguments: Namespace) -> int:
    """Rank strategy × checkpointing × micro-batch, or what the overrides vary, by what is predicted."""
    from benchrunner.plan.explain import rank
    from benchrunner.report.terminal import print_plan

    _refuse_beside(arguments, "--maximise ranks cells", "explain", "only")
    named = {override.partition("=")[0].lstrip("+") for override in arguments.overrides}
    searched = [f"{key}={values}" for key, values in SEARCHED.items() if key not in named]
    if arguments.within and "memory_limit_gib" in named:
        raise UsageError("--within is memory_limit_gib: give one of them")
    limit = [f"memory_limit_gib={parse_gib(arguments.within)}"] if arguments.within else []
    arguments.overrides, arguments.multirun = [*arguments.overrides, *searched, *limit], True
    made = plan_overrides(arguments, launch=False)
    best = rank(made.cells, arguments.maximise)
    if not best:
        raise UsageError(
            f"none of {len(made.cells)} cells has a predicted {arguments.maximise} and is predicted to fit; "
            "hardware=NAME names a device whose peaks are known, and predict=off predicts nothing"
        )
    chosen = replace(made, cells=best[:NUM_BEST])
    if arguments.json:
        _print_json(chosen)
        return EXIT_OK
    print(f"the best {min(NUM_BEST, len(best))} of {len(made.cells)} cells by {arguments.maximise}; {len(best)} fit")
    print_plan(chosen)
    return EXIT_OK


def _print_json(made: "Plan") -> None:
    from benchrunner.store.plan_file import plan_document

    print(json.dumps(plan_document(made), indent=1, allow_nan=False))


def parse_gib(text: str) -> float:
    """`80GiB`, `80 GB` or `80` (GiB) in GiB.

    Raises:
        UsageError: anything else, or nothing.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(gib|gb|)", text.strip().lower())
    gib = float(found[1]) * (1e9 / 2**30 if found[2] == "gb" else 1.0) if found else 0.0
    if gib <= 0:
        raise UsageError(f"--within: {text!r} is no size such as 80GiB or 80GB")
    return gib


def _verdicts(given: str | None) -> tuple[str, ...]:
    """The verdicts of `--only`; all where it was not given."""
    chosen = tuple(filter(None, (given or "").split(",")))
    for word in chosen:
        if word not in VERDICTS:
            raise UsageError(f"--only: {word!r} is not one of {', '.join(VERDICTS)}{did_you_mean(word, VERDICTS)}")
    return chosen or VERDICTS


COMMAND = Command(
    run=plan,
    summary="list every cell with its verdict, reason, predicted memory and time; runs nothing",
    details="The overrides are those of bench; hardware=NAME plans for a machine that is not here, and predict=dry_run "
    "predicts memory by the worker's own step without a device.",
    operands=OVERRIDES,
    flags=(
        MULTIRUN,
        JSON,
        ONLY,
        Flag(names=("--explain",), metavar="CELL", help="the terms of one cell's prediction: a number, id or slug"),
        Flag(names=("--maximise",), metavar="X", help="rank strategy × checkpointing × batch by tokens/s or mfu"),
        Flag(names=("--within",), metavar="SIZE", help="with --maximise: on a card of so much memory, e.g. 80GiB"),
    ),
    examples=(
        Example(
            line="bench plan -m model=llama2-7b strategy=fsdp,ddp",
            meaning="what would run, and why not; needs no GPU",
        ),
        Example(line="bench plan hardware=h200-sxm-141gb devices=8 model=llama2-70b strategy=fsdp"),
        Example(line="bench plan hardware=h200-sxm-141gb model=llama2-7b --explain 1"),
        Example(line="bench plan hardware=h100-sxm-80gb devices=8 model=llama2-7b --maximise tokens/s --within 80GB"),
    ),
)
