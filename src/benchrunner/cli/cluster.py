"""Commands on a cluster: which machine is planned for, and following the allocations."""

import shutil
import sys
import tempfile
import time
from argparse import Namespace
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from benchrunner.cli.command import EXIT_OK, Flag
from benchrunner.core.errors import UsageError

if TYPE_CHECKING:
    from benchrunner.core.paths import SweepPaths
    from benchrunner.core.schema import Config
    from benchrunner.launch.allocation import Allocator
    from benchrunner.machine.probe import Node
    from benchrunner.plan.plan import Plan
    from benchrunner.run.options import RunOptions

DETACH = Flag(names=("--detach",), help="on a cluster: submit and leave; bench watch DIR follows, bench resume DIR too")

PROBE_MIN = 5
ASK_INTERVAL_S = 2.0


def require_cluster(launcher: str, arguments: Namespace) -> None:
    """Refuse a flag that means nothing on this machine.

    Raises:
        UsageError: `--detach` without a cluster.
    """
    if arguments.detach and launcher == "local":
        raise UsageError("--detach: cells of launcher=local end with bench; launcher=detached or slurm outlives it")


def follow_and_report(
    plan: "Plan",
    paths: "SweepPaths",
    allocator: "Allocator",
    options: "RunOptions",
    junit: str | None = None,
    *,
    detach: bool = False,
    only_watch: bool = False,
) -> int:
    """Have allocations run every cell that is left, and print the tables and the directory; the exit code."""
    from benchrunner.cli.run_and_report import report
    from benchrunner.run.follow import Following, follow_plan

    summary = follow_plan(plan, paths, allocator, options, Following(detach=detach, only_watch=only_watch))
    if summary is None:
        print(paths.root, flush=True)
        return EXIT_OK
    return report(paths, summary, junit)


def node_of(config: "Config", devices: int) -> "Node":
    """What the nodes are that `launcher` asks for, by a short allocation: the submitting host may be another machine.

    Args:
        config: of any cell.
        devices: a node, that the largest cell asks for; 0: none does.

    Raises:
        UsageError: the allocation was refused, or ended without an answer.
    """
    from benchrunner.core.errors import DamagedFile
    from benchrunner.launch.launchers import allocator_for
    from benchrunner.machine.probe import read_probe

    allocator = allocator_for(config.launcher)
    assert allocator is not None
    Path(config.out_dir).mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(prefix=".probe-", dir=config.out_dir)).resolve()
    try:
        _probe(allocator, place, config, devices)
        return read_probe(place / "hardware.json")
    except (FileNotFoundError, DamagedFile) as error:
        raise UsageError(f"launcher: the nodes could not be examined: {_last_words(allocator, place)}") from error
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _probe(allocator: "Allocator", place: Path, config: "Config", devices: int) -> None:
    from benchrunner.core.files import write_json

    found, wanted = place / "hardware.json", place / "wanted.json"
    write_json(wanted, asdict(config.hardware))
    words = [sys.executable, "-m", "benchrunner.machine.probe", str(found), str(wanted)]
    job = _submit_probe(allocator, place, config, words, devices)
    (place / "job").write_text(job, encoding="utf-8")
    print(f"what the nodes are is asked of them: job {job}", file=sys.stderr)
    try:
        _wait_for(allocator, place, job)
    except BaseException:
        allocator.cancel(place, [job])
        raise


def _wait_for(allocator: "Allocator", place: Path, job: str) -> None:
    """Until a job has ended.

    Raises:
        UsageError: it never will.
        SystemExit: a signal asks for an end.
    """
    from benchrunner.launch.allocation import hopeless_text
    from benchrunner.run.interrupts import Interrupts

    said = ""
    with Interrupts(lambda: allocator.cancel(place, [job])) as interrupts:
        while (state := allocator.poll(place, [job]).get(job)) is None or state.phase != "ended":
            if interrupts.signum is not None:
                raise SystemExit(128 + interrupts.signum)
            if state is not None and state.is_hopeless:
                raise UsageError(hopeless_text(state.detail))
            if state is not None and state.detail != said and state.phase == "waiting":
                said = state.detail
                print(f"job {job} waits ({said})", file=sys.stderr)
            time.sleep(ASK_INTERVAL_S)


def _submit_probe(allocator: "Allocator", place: Path, config: "Config", words: list[str], devices: int) -> str:
    """Where nobody says how many GPUs a node has, a cluster that gives none at all is one of CPUs."""
    from benchrunner.launch.allocation import Request

    request = Request(name="bench-probe", command=words, time_min=PROBE_MIN)
    known = 0 if config.hardware.name == "cpu" else config.launcher.gpus_per_node
    if known is None and config.launcher.gres is None:
        with suppress(UsageError):
            return allocator.submit(place, replace(request, gpus_per_node=devices or 1))
    return allocator.submit(place, replace(request, gpus_per_node=known or 0))


def _last_words(allocator: "Allocator", place: Path) -> str:
    from benchrunner.run.allocations import last_words

    return last_words(allocator.logs(place, (place / "job").read_text(encoding="utf-8")))
