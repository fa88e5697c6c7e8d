"""Leads a job's ranks and dies with `bench`: `python -m benchrunner.worker.agent <attempt directory> <ranks>`.

Runs torch.distributed.run inside this process, or forks the ranks where torch is loaded already (`preloaded.py`), and
keeps the exit codes of the ranks, which torchrun's own exit code (always 1) and summary do not tell apart.
"""

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from benchrunner.core.files import write_json
from benchrunner.core.job_file import PARENT_VARIABLE
from benchrunner.core.paths import AttemptPaths
from benchrunner.core.rank_file import ExitsFile
from benchrunner.worker.imports import uncollected
from benchrunner.worker.parent import AGENT_VARIABLE, die_with_parent, hear_of_cpu_limit, hear_signals, stand_somewhere
from benchrunner.worker.ranks import Stopped, run_ranks


def main(attempt_dir: str, num_ranks: str, *rendezvous: str) -> int:
    """Run the job and return its exit code: 0, 1, or 128 + signal when it was told to stop.

    `rendezvous` holds torchrun's options for a job over several nodes; without them the job is this node's alone.
    """
    _begin()
    with uncollected():
        from torch.distributed.elastic.multiprocessing import SignalException
        from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    try:
        run_torchrun(torchrun_words(attempt_dir, num_ranks, rendezvous))
    except ChildFailedError as failure:
        print(failure, file=sys.stderr)
        _keep_exits(attempt_dir, {rank: child.exitcode for rank, child in failure.failures.items()})
        return 1
    except SignalException as stopped:
        return 128 + int(stopped.sigval)
    return 0


def lead_forked(attempt_dir: str, num_ranks: int) -> int:
    """The same in a process that was forked with torch loaded: its ranks are forked from it."""
    _begin()
    try:
        exits = run_ranks(attempt_dir, num_ranks)
    except Stopped as stopped:
        return 128 + stopped.signum
    if exits:
        _keep_exits(attempt_dir, exits)
    return int(bool(exits))


def _begin() -> None:
    die_with_parent(PARENT_VARIABLE)
    stand_somewhere()
    hear_signals()
    hear_of_cpu_limit()
    os.environ[AGENT_VARIABLE] = str(os.getpid())
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # an ignored one would be inherited by every rank


def run_torchrun(words: list[str]) -> None:
    """torch.distributed.run with these arguments, in this process."""
    with uncollected():
        from torch.distributed import run as torchrun

    arguments: Any = torchrun.parse_args(words)  # type: ignore[no-untyped-call]
    torchrun.run(arguments)  # type: ignore[no-untyped-call]


def torchrun_words(attempt_dir: str, num_ranks: str, rendezvous: Sequence[str] = ()) -> list[str]:
    """torchrun's arguments.

    Without `--local-addr` ranks wait for DNS where the host name does not resolve; without `--log-dir` every job leaves
    an empty tree of folders in the temporary directory (the ranks keep their own logs).
    """
    meeting = list(rendezvous) or ["--standalone", "--local-addr=localhost"]
    how = ["--max-restarts=0", f"--log-dir={os.devnull}", f"--nproc-per-node={num_ranks}"]
    return [*meeting, *how, "-m", "benchrunner.worker", attempt_dir]


def _keep_exits(attempt_dir: str, exits: dict[int, int]) -> None:
    """In the order in which the ranks were seen to end, the ones that were told to last."""
    node = int(os.environ.get("SLURM_NODEID", "0"))
    listed: ExitsFile = {"exits": [{"rank": rank, "code": code} for rank, code in exits.items()]}
    write_json(AttemptPaths(Path(attempt_dir)).exits(node), listed)


def leave(code: int) -> NoReturn:
    """End this process at once: taking an interpreter apart that has imported torch takes most of a second."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    leave(main(*sys.argv[1:]))
