"""A process that has torch loaded and forks the agents of jobs: `python -m benchrunner.worker.preloaded <socket>`.

`bench` keeps one while a sweep runs (`launch/preloaded.py`), so that torch is imported once, and not by the agent and
the ranks of every cell. It computes nothing, touches no device and starts no thread: what is forked from it is as a
fresh process that has imported the same.
"""

import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import threading
import traceback
from pathlib import Path
from typing import Any, NoReturn

from benchrunner.core.job_file import MARKER_VARIABLE, NO_MARKER, PARENT_VARIABLE
from benchrunner.worker import agent
from benchrunner.worker.imports import uncollected
from benchrunner.worker.marker import show_marker
from benchrunner.worker.parent import die_with_parent, hear_of_cpu_limit, hear_signals, stand_somewhere

MODULES = (
    "torch.distributed",
    "benchrunner.worker.context",
    "benchrunner.worker.workloads.train",
    "benchrunner.worker.workloads.forward",
    "benchrunner.worker.workloads.generate",
)
"""What every cell needs. No optional package: one that breaks as it is imported is the business of the cells that use
it, and some touch a device."""

REQUEST_BYTES = 1 << 16


def main(descriptor: str) -> None:
    """Import, then fork an agent for each request until `bench` closes its end. Never returns."""
    die_with_parent(PARENT_VARIABLE)
    stand_somewhere()
    hear_signals()
    hear_of_cpu_limit()
    show_marker(NO_MARKER)
    with uncollected():
        for name in MODULES:
            importlib.import_module(name)
    if obstacle := what_must_not_be_forked():
        raise RuntimeError(obstacle)
    gc.freeze()  # else the first collection in every rank copies all that it shares with this process
    serve(socket.socket(fileno=int(descriptor)))


def what_must_not_be_forked() -> str | None:
    """What the imports did that no forked process could use: threads of Python's, a device that was opened."""
    if threading.active_count() > 1:
        return f"the imports started threads: {[thread.name for thread in threading.enumerate()]}"
    opened = [os.readlink(entry) for entry in Path("/proc/self/fd").iterdir() if entry.exists()]
    devices = [name for name in opened if name.startswith("/dev/nvidia")]
    return f"the imports opened {devices[0]}" if devices else None


def serve(control: socket.socket) -> NoReturn:
    """Answer a request with the agent's process id, and later with its exit code."""
    woken, waker = socket.socketpair()
    for end in (woken, waker):
        end.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda signum, frame: None)
    signal.set_wakeup_fd(waker.fileno())
    jobs: dict[int, int] = {}
    while True:
        ready, _, _ = select.select([control, woken], [], [])
        if woken in ready:
            woken.recv(REQUEST_BYTES)
        if control in ready:
            _take(control, jobs)
        _report_ended(control, jobs)


def _take(control: socket.socket, jobs: dict[int, int]) -> None:
    message, descriptors, _, _ = socket.recv_fds(control, REQUEST_BYTES, 1)
    if not message:  # bench has no more jobs
        agent.leave(0)
    request, log = json.loads(message), descriptors[0]
    pid = _fork(control, log, request)
    os.close(log)
    jobs[pid] = request["job"]
    _say(control, {"job": request["job"], "pid": pid})


def _report_ended(control: socket.socket, jobs: dict[int, int]) -> None:
    while jobs:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        _say(control, {"job": jobs.pop(pid), "code": os.waitstatus_to_exitcode(status)})


def _say(control: socket.socket, answer: dict[str, int]) -> None:
    try:
        control.send(json.dumps(answer).encode())
    except OSError:  # nobody listens any more
        agent.leave(0)


# --- in the agent --------------------------------------------------------------------------------------------------


def _fork(control: socket.socket, log: int, request: dict[str, Any]) -> int:
    """The agent's process id; in the agent itself it never returns."""
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        control.close()
        _settle(log, request["variables"] | {PARENT_VARIABLE: str(parent)})
        agent.leave(agent.lead_forked(request["attempt_dir"], request["num_ranks"]))
    except BaseException:
        traceback.print_exc()
        agent.leave(1)


def _settle(log: int, variables: dict[str, str]) -> None:
    """A session, streams, a marker and variables of its own."""
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDONLY)
    for mine, descriptor in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(mine, descriptor)
    os.close(nothing)
    os.close(log)
    os.environ |= variables
    show_marker(variables[MARKER_VARIABLE])


if __name__ == "__main__":
    main(sys.argv[1])
