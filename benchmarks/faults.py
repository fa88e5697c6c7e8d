"""What becomes of a sweep when things die: every planted fault on every rank, signals, disks, and kill -9 at random.

    python benchmarks/faults.py                                everything, into docs/reliability.md: hours on 2 cores
    python benchmarks/faults.py --kills 0                      without the kills at random instants
    python benchmarks/faults.py --brief --kills 5 --kill-sweep tiny                a quick look
    python benchmarks/faults.py --only oom,hang --out -
    python benchmarks/faults.py --only kills --jobs 12 --json kills.json --out -   a part, where there are many cores
    python benchmarks/faults.py --only trials,more,habits --kills 0   what audits tried: forty minutes
    python benchmarks/faults.py --merge rest.json kills.json   the document from its parts; what is in none stays

Everything goes through `bench` itself, as a user starts it. Processes are counted by a variable of ours in their
environment, not by the runner's own marker; records are read from the disk. GPUs are hidden from it but for `--gpu`,
which gives each of the `--jobs` beside each other `--devices` GPUs of its own.
"""

import argparse
import os
import random
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path

import disks
import fault_table
import kills
import launches
import trials
from fault_table import Findings
from trials import TrialRow
from trials_habits import HABITS
from trials_listed import LISTED
from trials_meanwhile import MEANWHILE
from trials_surroundings import SURROUNDINGS
from victim import (
    PLACES,
    SWEEPS,
    TINY,
    Row,
    Sweep,
    describe_exit,
    new_sweep,
    recorded_at_s,
    statuses,
    struck_at_s,
    visible_devices,
    wait_for,
)

from benchrunner.core.faults import DEATHS
from benchrunner.core.record import PHASES

ROOT = Path(__file__).resolve().parents[1]
HANG_LIMIT_S = 15

HANGS, HARMLESS = ("hang", "ignore_sigterm"), ("clock_jump", "grandchild", "print_env", "flood")
TRIALS = {"trials": LISTED, "more": [*SURROUNDINGS, *MEANWHILE], "habits": HABITS}
PARTS = ("bench", "launch", "disk", *TRIALS, "kills")
"""What `--only` knows beside kinds of faults."""

Task = Callable[[], Row | None]


# --- faults in a rank ----------------------------------------------------------------------------------------------


def rank_tasks(devices: int, only: set[str], *, is_brief: bool) -> Iterator[Task]:
    """Every kind on every rank, a hang in every phase too; brief: each once, the ranks in turn."""
    kinds = [kind for kind in DEATHS if not only or kind in only]
    plants = [(kind, phase) for kind in kinds for phase in (PHASES if kind == "hang" else [None])]
    for index, (kind, phase) in enumerate(plants):
        for rank in [index % devices] if is_brief else range(devices):
            yield partial(rank_row, kind, rank, phase)


def rank_row(kind: str, rank: int, phase: str | None) -> Row:
    """One cell of several ranks under the fault; where the fault does not hit it, a cell of one rank after it."""
    fault = f"{kind}@{rank}" + (f":{phase}" if phase else "")
    words = ["-m", *TINY, "strategy=ddp,single" if rank else "strategy=ddp"]
    if kind in HANGS:
        words.append(f"limits.{phase or 'build'}_s={HANG_LIMIT_S}")
    with new_sweep() as sweep:
        sweep.run(words, fault)
        left, records = sweep.left(), sweep.records()
        struck = next((record for record in records.values() if record["axes"]["strategy"] == "ddp"), None)
        beside = [record["status"] for record in records.values() if record is not struck]
        lost = sweep.num_planned() - len(records) + sum(status != "ok" for status in beside)
        seconds = None if struck is None or kind in HARMLESS else _seconds_to_verdict(sweep, struck)
    return Row(fault, _verdict(struck), seconds, left, lost)


def _verdict(record: dict | None) -> str:
    if record is None:
        return "no record"
    root = (record["evidence"] or {}).get("rank")
    return record["reason_code"] + (f", rank {root}" if root is not None else "") if record["reason_code"] else "ok"


def _seconds_to_verdict(sweep: Sweep, record: dict) -> float | None:
    struck_s = struck_at_s(sweep, record)
    return None if struck_s is None else recorded_at_s(sweep, record) - struck_s


# --- signals to bench ----------------------------------------------------------------------------------------------


def signal_tasks() -> Iterator[Task]:
    yield partial(signal_row, "Ctrl-C", "hang", [signal.SIGINT])
    yield partial(signal_row, "SIGTERM", "hang", [signal.SIGTERM])
    yield partial(signal_row, "Ctrl-C twice, a rank ignores SIGTERM", "ignore_sigterm", [signal.SIGINT, signal.SIGINT])
    yield partial(signal_row, "SIGKILL", "hang", [signal.SIGKILL])


def signal_row(name: str, fault: str, signals: list[int]) -> Row:
    """Signal a `bench` whose ranks hang, then resume it without the fault."""
    with new_sweep() as sweep:
        bench = sweep.start(["-m", *TINY, "strategy=ddp,single", f"out_dir={sweep.out / 'outputs'}"], fault)
        wait_for(lambda: _num_struck(sweep) >= 2)
        started = time.monotonic()
        for signum in signals:
            bench.send_signal(signum)
            time.sleep(0.3 if len(signals) > 1 else 0.0)
        code = bench.wait()
        sweep.drain()
        seconds, left = time.monotonic() - started, sweep.left()
        observed = f"{describe_exit(code)}; {statuses(sweep)}; resumed: "
        sweep.resume()
        lost = sweep.num_planned() - sum(record["status"] == "ok" for record in sweep.records().values())
        return Row(f"bench: {name}", observed + statuses(sweep), seconds, left + sweep.left(), lost)


def _num_struck(sweep: Sweep) -> int:
    logs = sweep.out.glob(f"{SWEEPS}/cells/*/attempt-1/rank*.err")
    return sum("planted fault" in log.read_text(errors="replace") for log in logs)


# --- all of it -----------------------------------------------------------------------------------------------------


def tasks(options: argparse.Namespace) -> list[Task]:
    only = options.only
    found = list(rank_tasks(options.devices, only, is_brief=options.brief))
    found += signal_tasks() if not only or "bench" in only else []
    found += launches.tasks() if not only or "launch" in only else []
    found += disks.tasks() if not only or "disk" in only else []
    return found


def run_all(found: Findings, options: argparse.Namespace) -> None:
    """Fill in rows, in their order, and kills; told and kept as each ends."""
    wanted = tasks(options)
    done: dict[int, Row | None] = {}
    with ThreadPoolExecutor(options.jobs) as pool:
        futures = {pool.submit(task): index for index, task in enumerate(wanted)}
        for future in as_completed(futures):
            done[futures[future]] = future.result()
            found.rows = [row for _, row in sorted(done.items()) if row is not None]
            _tell(f"{len(done)} of {len(wanted)}: {future.result()}", found, options)
    for row in run_trials(options):
        found.trials.append(row)
        _tell(f"{len(found.trials)} trials: {row}", found, options)
    count = options.kills if not options.only or "kills" in options.only else 0
    for kill in kills.kills(options.kill_sweep, count, options.jobs, random.Random(options.seed)) if count else ():
        found.kills.append(kill)
        _tell(f"{len(found.kills)} of {count}: {kill}", found, options)


def run_trials(options: argparse.Namespace) -> Iterator[TrialRow]:
    """One after the other: some look at the time that things take."""
    parts = [of for part, of in TRIALS.items() if not options.only or part in options.only]
    chosen = [trial for of in parts for trial in of if fnmatchcase(trial.what, options.trial)]
    for task in trials.tasks(chosen):
        if (row := task()) is not None:
            yield row


def _tell(text: str, found: Findings, options: argparse.Namespace) -> None:
    print(text, file=sys.stderr, flush=True)
    if options.json:
        found.save(options.json)


def prepare(*, gpu: bool, jobs: int, devices: int) -> None:
    """Threads, GPUs and signals as the sweeps are to find them: with `gpu` each of the jobs has so many of its own."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    signal.signal(signal.SIGINT, signal.default_int_handler)  # one that is ignored here (nohup) would be by bench too
    if not gpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        return
    names = visible_devices()
    if len(names) < jobs * devices:
        sys.exit(f"{jobs} jobs need {devices} GPUs each, {len(names)} are visible")
    for job in range(jobs):
        PLACES.put(",".join(names[job * devices : (job + 1) * devices]))


def main() -> int:
    options = _parse()
    if options.merge:
        found = fault_table.merge([fault_table.load(path) for path in options.merge])
    else:
        prepare(gpu=options.gpu, jobs=options.jobs, devices=options.devices)
        found = Findings([fault_table.source(shlex.join(["python", "benchmarks/faults.py", *sys.argv[1:]]))])
        run_all(found, options)
    fault_table.write(fault_table.document(found), options.out)
    return 3 if found.num_broken() else 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help=f"kinds of faults, and of {', '.join(PARTS)}; comma-separated")
    parser.add_argument("--trial", default="*", help="of the trials those of such a name")
    parser.add_argument("--brief", action="store_true", help="each fault on one rank only, the ranks in turn")
    parser.add_argument("--kills", type=int, default=50, help="how often bench is killed at a random instant")
    parser.add_argument("--kill-sweep", choices=list(kills.SWEEPS), default="smoke", help="what is killed")
    parser.add_argument("--seed", type=int, default=0, help="of the instants")
    parser.add_argument(
        "--jobs", type=int, default=1, help="sweeps beside each other; times are then those of a busy host"
    )
    parser.add_argument("--gpu", action="store_true", help="on GPUs; else they are hidden")
    parser.add_argument("--devices", type=int, default=2, help="with --gpu: ranks of the cell that is struck (CPU: 2)")
    parser.add_argument("--json", type=Path, help="keep the rows here, as each is found")
    parser.add_argument("--merge", type=Path, nargs="+", metavar="FILE", help="run nothing: the document from these")
    parser.add_argument("--out", default=str(ROOT / "docs" / "reliability.md"), help="- prints")
    options = parser.parse_args()
    options.only = set(filter(None, options.only.split(",")))
    if unknown := options.only - {*DEATHS, *PARTS}:
        parser.error(f"--only: unknown {', '.join(sorted(unknown))}; known: {', '.join((*DEATHS, *PARTS))}")
    if options.devices != 2 and not options.gpu:
        parser.error("--devices is for --gpu: a cell of several ranks on a CPU has 2")
    return options


if __name__ == "__main__":
    sys.exit(main())
