"""`bench compare BASE NEW`: is anything slower, or does anything work no more? A gate for CI."""

import math
import shlex
import shutil
import sys
import time
from argparse import Namespace
from typing import TYPE_CHECKING

from benchrunner.cli.command import EXIT_GATE, EXIT_OK, METRIC, Command, Example, Flag, Operands
from benchrunner.cli.directories import sweep_directories
from benchrunner.cli.gate_files import GATE_FLAGS, show_findings
from benchrunner.core.errors import UsageError

if TYPE_CHECKING:
    from benchrunner.compare.gate import GateOptions
    from benchrunner.compare.pairing import CellPair, Pairing
    from benchrunner.compare.pairs import PairsPlan
    from benchrunner.compare.side import Side


def compare(arguments: Namespace) -> int:
    """Compare two sweeps, run again what is asked for, and print the verdict."""
    from benchrunner.compare import comparison_report, gate
    from benchrunner.compare.pairing import pair_cells

    options, plan = _options(arguments), _pairs_plan(arguments)
    base, new = _bench("--base-bench", arguments.base_bench), _bench("--new-bench", arguments.new_bench)
    pairing = pair_cells(*_sides(arguments))
    found = gate.compare(pairing, options)
    again = gate.to_run_again(found, undecided=arguments.decide) if arguments.confirm or arguments.decide else []
    if again:
        commands = {str(pairing.base.paths.root): base, str(pairing.new.paths.root): new}
        differences = _run_pairs(again, pairing, options, plan, commands)
        found = gate.compare(pairing, options, differences, num_looks=plan.num_looks)
    show_findings(
        arguments,
        text=comparison_report.to_text(found),
        markdown=comparison_report.to_markdown(found),
        document=comparison_report.to_document(found),
        junit=lambda: comparison_report.to_xml(found),
    )
    return EXIT_GATE if found.verdict == "FAIL" or (arguments.strict and found.verdict != "PASS") else EXIT_OK


def _sides(arguments: Namespace) -> "list[Side]":
    from benchrunner.compare.side import read_side
    from benchrunner.core.paths import SweepPaths

    if len(arguments.directories) != 2:
        example = "bench compare outputs/smoke/BASE outputs/latest"
        raise UsageError(f"compare needs two sweeps, BASE and NEW, got {len(arguments.directories)}, e.g. {example}")
    directories = sweep_directories("compare", arguments.directories)
    return [read_side(SweepPaths(directory)) for directory in directories]


def _options(arguments: Namespace) -> "GateOptions":
    from benchrunner.compare.gate import GateOptions
    from benchrunner.compare.metric import metric_named

    chosen = GateOptions(metric=metric_named(arguments.metric or "time"))
    if arguments.min_effect is None:
        return chosen
    return GateOptions(metric=chosen.metric, min_effect=_share(arguments.min_effect))


def _share(text: str) -> float:
    try:
        share = float(text.removesuffix("%")) / 100
    except ValueError:
        share = math.nan
    if not text.endswith("%") or not 0 < share < 1:
        raise UsageError(f"--min-effect: {text!r} is no share such as 3%")
    return share


def _pairs_plan(arguments: Namespace) -> "PairsPlan":
    """How many pairs, and until when."""
    from benchrunner.compare.pairs import LEAST_PAIRS, PairsPlan
    from benchrunner.run.budget import parse_duration

    most = arguments.pairs or "5"
    if not most.isdecimal() or int(most) < LEAST_PAIRS:
        raise UsageError(f"--pairs: {most!r} is no number of pairs, at least {LEAST_PAIRS}")
    end_s = time.monotonic() + (
        parse_duration(arguments.stop_after, "--stop-after") if arguments.stop_after else math.inf
    )
    return PairsPlan(most=int(most), is_time_left=lambda: time.monotonic() < end_s)


def _bench(flag: str, command: str | None) -> list[str]:
    """How the bench of a side is called, which has to be there before anything runs."""
    if command is None:
        return [sys.executable, "-m", "benchrunner"]
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise UsageError(f"{flag}: cannot read {command!r}: {error}") from error
    if not words or shutil.which(words[0]) is None:
        raise UsageError(f"{flag}: {command!r} begins with no program that can be executed, e.g. /old/.venv/bin/bench")
    return words


def _run_pairs(
    cells: "list[CellPair]",
    pairing: "Pairing",
    options: "GateOptions",
    plan: "PairsPlan",
    commands: dict[str, list[str]],
) -> dict[str, list[float]]:
    from benchrunner.compare.pairs import BenchRerun, run_pairs

    sides = (pairing.base, pairing.new)
    return run_pairs(cells, sides, options, BenchRerun(commands), plan, tell=lambda line: print(line, file=sys.stderr))


COMMAND = Command(
    run=compare,
    summary="which cells became slower or work no more: PASS, FAIL or INCONCLUSIVE of each and of all",
    details="Exit 3 on FAIL. The process is the unit: measure both sides with repeats=3 or more. With --confirm and"
    " --decide both sides are run again here, in turns, each by the program that measured it.",
    operands=Operands(name="directories", usage="BASE NEW"),
    flags=(
        METRIC,
        Flag(names=("--min-effect",), metavar="SHARE", help="differences below are of no interest; usual: 3%"),
        Flag(names=("--strict",), help="exit 3 unless it is PASS"),
        Flag(names=("--confirm",), help="run cells that look slower again, base and new in turns, before it is FAIL"),
        Flag(names=("--decide",), help="run undecided cells so, too, until they are decided"),
        Flag(names=("--pairs",), metavar="N", help="at most so many pairs of a cell; usual: 5"),
        Flag(names=("--stop-after",), metavar="TIME", help="begin no pair after that, e.g. 20m"),
        Flag(
            names=("--base-bench",),
            metavar="COMMAND",
            help="how the bench of the base is called; usual: this one. E.g. '/old/.venv/bin/bench'",
        ),
        Flag(names=("--new-bench",), metavar="COMMAND", help="the same of the new one"),
        *GATE_FLAGS,
    ),
    examples=(
        Example(
            line="bench compare outputs/nightly/20261120T020000Z outputs/latest", meaning="slower than last night?"
        ),
        Example(line="bench compare --confirm --stop-after 20m BASE NEW", meaning="and sure of it"),
    ),
)
