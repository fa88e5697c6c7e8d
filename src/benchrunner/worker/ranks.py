"""What torchrun does for the ranks of one node, for ranks that are forked: a port to meet at, and their ends.

Not torch's own launcher of functions: it wants a function that returns, keeps the exit code of one rank alone, and
has threads of its own by the time it forks.
"""

import os
import signal
import socket
import sys
import time
from types import FrameType
from typing import Any

from benchrunner.worker import __main__ as worker

GRACE_S = 5.0
"""From SIGTERM to SIGKILL for the ranks beside one that failed."""

ADDRESS = "127.0.0.1"

STOPS = (signal.SIGTERM, signal.SIGINT)


class Stopped(BaseException):
    """The job was told to stop."""

    def __init__(self, signum: int) -> None:
        self.signum = signum


def run_ranks(attempt_dir: str, num_ranks: int) -> dict[int, int]:
    """Fork the ranks and wait for them; once one fails the others are ended.

    Returns rank → exit code (negative: the signal) of those that failed, in the order in which they fell, the ones
    that were ended last.

    Raises:
        Stopped: told to stop; no rank is left then.
    """
    pids: dict[int, int] = {}
    codes: dict[int, int] = {}
    for signum in STOPS:
        signal.signal(signum, _stop)
    meeting = socket.create_server((ADDRESS, 0))
    os.environ |= job_variables(num_ranks, meeting.getsockname()[1])
    try:
        for rank in range(num_ranks):
            pids[_fork(attempt_dir, rank, meeting)] = rank
        store = _store(meeting)
        while len(codes) < num_ranks and not any(codes.values()):
            _reap(pids, codes, os.waitpid(-1, 0))
        _reap_ended(pids, codes)
        del store
    finally:
        _end({pid: rank for pid, rank in pids.items() if rank not in codes}, codes)
    return {rank: code for rank, code in codes.items() if code}


def job_variables(num_ranks: int, port: int) -> dict[str, str]:
    """What torchrun tells the ranks of a job on one node, but for each rank's own number."""
    each = {"WORLD_SIZE": num_ranks, "LOCAL_WORLD_SIZE": num_ranks, "ROLE_WORLD_SIZE": num_ranks}
    alone = {"GROUP_RANK": 0, "GROUP_WORLD_SIZE": 1, "ROLE_NAME": "default"}
    meeting = {"MASTER_ADDR": ADDRESS, "MASTER_PORT": port, "TORCHELASTIC_USE_AGENT_STORE": True}
    elastic = {"TORCHELASTIC_RUN_ID": "none", "TORCHELASTIC_RESTART_COUNT": 0, "TORCHELASTIC_MAX_RESTARTS": 0}
    told = {name: str(value) for name, value in (each | alone | meeting | elastic).items()}
    return told | {"TORCH_NCCL_ASYNC_ERROR_HANDLING": os.environ.get("TORCH_NCCL_ASYNC_ERROR_HANDLING", "1")}


def _fork(attempt_dir: str, rank: int, meeting: socket.socket) -> int:
    """The rank's process id; in the rank itself it never returns."""
    pid = os.fork()
    if pid:
        return pid
    try:
        for signum in STOPS:
            signal.signal(signum, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.setsid()
        meeting.close()
        os.environ |= {name: str(rank) for name in ("RANK", "LOCAL_RANK", "ROLE_RANK")}
        worker.main(attempt_dir)
    finally:  # no rank ever goes on as an agent
        os._exit(1)


def _store(meeting: socket.socket) -> Any:
    """Where the ranks meet. It has a thread of its own, and so comes after the forks."""
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    port = meeting.getsockname()[1]
    return TCPStore(ADDRESS, port, is_master=True, wait_for_workers=False, master_listen_fd=meeting.detach())


def _reap(pids: dict[int, int], codes: dict[int, int], ended: tuple[int, int]) -> None:
    pid, status = ended
    if pid in pids:
        codes[pids[pid]] = code = os.waitstatus_to_exitcode(status)
        if code:
            print(f"rank {pids[pid]} (process {pid}) ended with code {code}", file=sys.stderr, flush=True)


def _reap_ended(pids: dict[int, int], codes: dict[int, int]) -> None:
    """Those who fell beside the first: they did so by themselves, and are not to be told to stop."""
    while len(codes) < len(pids):
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        _reap(pids, codes, (pid, status))


def _end(left: dict[int, int], codes: dict[int, int]) -> None:
    """SIGTERM to the ranks that are left, SIGKILL after a while, until none is. `outcome` reads the printed line."""
    _send(left, signal.SIGTERM)
    kill_at, is_killed = time.monotonic() + GRACE_S, False
    while any(rank not in codes for rank in left.values()):
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid:
            _reap(left, codes, (pid, status))
        elif time.monotonic() > kill_at and not is_killed:
            is_killed = True
            _send({pid: rank for pid, rank in left.items() if rank not in codes}, signal.SIGKILL)
        else:
            time.sleep(0.01)


def _send(pids: dict[int, int], signum: signal.Signals) -> None:
    for pid in pids:
        print(f"Sending process {pid} closing signal {signum.name}", file=sys.stderr, flush=True)
        os.kill(pid, signum)


def _stop(signum: int, frame: FrameType | None) -> None:
    raise Stopped(signum)
