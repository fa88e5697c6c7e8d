"""Real ranks without torchrun: forked from one process that has torch loaded, so that a job costs a second.

Below the agent everything is the worker's own code; this file stands in for torchrun alone, and does what the runner
relies on: keeps the store, ends the others when a rank has failed, and reports exit codes in the order of failure.
"""

import multiprocessing
import os
import signal
import socket
import sys
import time
from multiprocessing import connection, process
from pathlib import Path
from typing import Any

import psutil

from benchrunner.launch.job import Job, write_job
from benchrunner.launch.local import LocalHandle
from benchrunner.launch.processes import marked_pids, send_signal
from benchrunner.launch.variables import job_environment

PRELOADED = [
    "torch.distributed",
    "torch.distributed.elastic.multiprocessing.errors",
    "benchrunner.worker.workloads.train",
]
GRACE_S = 3.0


class ForkLauncher:
    """In place of LocalLauncher. `clock`, where given to the run loop too, can leap over the hours of a hang."""

    is_local = True

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(PRELOADED)
        self.handles: list[ForkHandle] = []

    def start(self, job: Job) -> "ForkHandle":
        """See Launcher."""
        write_job(job)
        reader, writer = self._context.Pipe(duplex=False)
        words = (str(job.paths.root.resolve()), job.cell.sizes.world_size, job_environment(job, os.environ), writer)
        agent = self._context.Process(target=_agent, args=words)
        agent.start()
        writer.close()
        self.handles.append(ForkHandle(job, Agent(agent, reader)))  # type: ignore[arg-type]
        return self.handles[-1]


class Agent:
    """What LocalHandle wants of a Popen."""

    def __init__(self, child: process.BaseProcess, reader: connection.Connection) -> None:
        self._child = child
        self.pid = child.pid
        self.stdout = open(os.dup(reader.fileno()), "rb")  # noqa: SIM115

    def poll(self) -> int | None:
        """See Popen."""
        return self._child.exitcode


class ForkHandle(LocalHandle):
    """A forked process shows the environment of the process that it was forked from: the tree is walked instead."""

    def pids(self) -> list[int]:
        """See Handle."""
        return sorted({*marked_pids(self._job.marker), *_tree(self._process.pid)})

    def kill(self) -> None:
        """See Handle."""
        super().kill()
        send_signal(self.pids(), signal.SIGKILL)


def _tree(pid: int) -> list[int]:
    try:
        agent = psutil.Process(pid)
        return [child.pid for child in (agent, *agent.children(recursive=True)) if child.status() != "zombie"]
    except psutil.NoSuchProcess:
        return []


# --- in the agent's process ----------------------------------------------------------------------------------------


def _agent(attempt_dir: str, num_ranks: int, env: dict[str, str], log: connection.Connection) -> None:
    from benchrunner.worker import agent

    os.setsid()
    for descriptor in (1, 2):
        os.dup2(log.fileno(), descriptor)
    log.close()
    os.environ.clear()
    os.environ.update(env | {agent.PARENT_VARIABLE: str(os.getppid())})
    vars(agent)["run_torchrun"] = lambda words: _run(attempt_dir, num_ranks)
    code = agent.main(attempt_dir, str(num_ranks))
    sys.stderr.flush()
    os._exit(code)


def _run(attempt_dir: str, num_ranks: int) -> None:
    """Fork the ranks and wait for them, as torchrun does.

    Raises:
        ChildFailedError: with every rank that did not end with code 0, the first to fail first.
        SignalException: told to stop.
    """
    from torch.distributed import TCPStore
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

    signal.signal(signal.SIGTERM, _stop)
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(num_ranks)}
    os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "True"
    ranks = {_fork(attempt_dir, rank, listening): rank for rank in range(num_ranks)}
    store = TCPStore("127.0.0.1", port, is_master=True, wait_for_workers=False, master_listen_fd=listening.detach())
    codes: dict[int, int] = {}
    try:
        while len(codes) < num_ranks and not any(codes.values()):
            codes |= _reap(ranks, codes)
            time.sleep(0.01)
    finally:
        _end([pid for pid, rank in ranks.items() if rank not in codes], ranks, codes)
    del store
    pids = {rank: pid for pid, rank in ranks.items()}
    bad = {
        rank: ProcessFailure(local_rank=rank, pid=pids[rank], exitcode=code, error_file="none")
        for rank, code in codes.items()
        if code
    }
    if bad:
        raise ChildFailedError("benchrunner.worker", bad)


def _fork(attempt_dir: str, rank: int, listening: socket.socket) -> int:
    from benchrunner.worker import __main__ as worker

    pid = os.fork()
    if pid:
        return pid
    try:
        listening.close()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.setsid()
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        worker.main(attempt_dir)
    finally:
        os._exit(1)


def _reap(ranks: dict[int, int], known: dict[int, int]) -> dict[int, int]:
    ended = {}
    for pid, rank in ranks.items():
        if rank not in known:
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                ended[rank] = os.waitstatus_to_exitcode(status)
    return ended


def _end(pids: list[int], ranks: dict[int, int], codes: dict[int, int]) -> None:
    for pid in pids:
        print(f"Sending process {pid} closing signal SIGTERM", file=sys.stderr, flush=True)
    send_signal(pids, signal.SIGTERM)
    end_s = time.monotonic() + GRACE_S
    while len(codes) < len(ranks):
        codes |= _reap(ranks, codes)
        if time.monotonic() > end_s:
            send_signal([pid for pid in pids if ranks[pid] not in codes], signal.SIGKILL)
        time.sleep(0.01)


def _stop(signum: int, frame: Any) -> None:
    from torch.distributed.elastic.multiprocessing import SignalException

    raise SignalException(f"told to stop by {signum}", sigval=signal.Signals(signum))


def sweep_of(root: Path) -> list[Path]:
    """Every file of a sweep."""
    return [path for path in root.rglob("*") if path.is_file()]
