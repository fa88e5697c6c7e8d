"""A process that has torch loaded and forks the agents of jobs: bench's side of `worker/preloaded.py`."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress

from benchrunner.core.job_file import MARKER_VARIABLE, NO_MARKER, PARENT_VARIABLE
from benchrunner.launch.job import Job

READ_LATE = (
    MARKER_VARIABLE,
    "CUDA_VISIBLE_DEVICES",  # as CUDA starts
    "TORCHINDUCTOR_CACHE_DIR",  # as something is compiled, like the next
    "TRITON_CACHE_DIR",
)
"""What may differ between jobs that are forked from one process: nothing that is imported there reads it before the job
has set it. Libraries read the rest as they load (OMP_NUM_THREADS among it)."""

ANSWER_BYTES = 1 << 12

DRAIN_S = 10.0
"""After SIGKILL."""


class Preloaded:
    """One such process, for jobs whose environment is alike but for `READ_LATE`."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._num_asked = 0
        self._pids: dict[int, int] = {}
        self._codes: dict[int, int] = {}
        self._is_gone = False
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "benchrunner.worker.preloaded", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # what breaks here breaks again in the agent that is started instead
                env={**env, MARKER_VARIABLE: NO_MARKER, PARENT_VARIABLE: str(os.getpid())},
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )

    def ask(self, job: Job, variables: Mapping[str, str], log: int) -> int:
        """Have an agent forked that writes into `log`, as soon as everything is imported; the request's number."""
        self._num_asked += 1
        request = {
            "job": self._num_asked,
            "attempt_dir": str(job.paths.root.resolve()),
            "num_ranks": job.cell.sizes.devices,
            "variables": dict(variables),
        }
        try:
            socket.send_fds(self._control, [json.dumps(request).encode()], [log])
        except OSError:
            self.close()
        return self._num_asked

    def pid(self, number: int) -> int | None:
        """The agent's process id; None until it is forked."""
        self._listen()
        return self._pids.get(number)

    def code(self, number: int) -> int | None:
        """The agent's exit code, negative for a signal; None until it has ended. It ends with this process."""
        self._listen()
        gone = -signal.SIGKILL if self._is_gone and number in self._pids else None
        return self._codes.get(number, gone)

    def is_gone(self) -> bool:
        """Whether it forks no more."""
        self._listen()
        return self._is_gone

    def has_forked(self) -> bool:
        """Whether anything could be imported."""
        return bool(self._pids)

    def is_idle(self) -> bool:
        """Whether every job that was asked for has ended."""
        self._listen()
        return self._is_gone or len(self._codes) == self._num_asked

    def close(self) -> None:
        """End it; the kernel ends what it forked."""
        self._is_gone = True
        self._control.close()
        self._process.kill()
        with suppress(subprocess.TimeoutExpired):  # stuck in the kernel
            self._process.wait(DRAIN_S)

    def _listen(self) -> None:
        while not self._is_gone:
            try:
                answer = self._control.recv(ANSWER_BYTES, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError:
                answer = b""
            self._hear(answer) if answer else self.close()

    def _hear(self, answer: bytes) -> None:
        told = json.loads(answer)
        if "pid" in told:
            self._pids[told["job"]] = told["pid"]
        else:
            self._codes[told["job"]] = told["code"]


class ForkedAgent:
    """One agent of a preloaded process; where that goes before it has forked it, one that is started on its own."""

    def __init__(
        self,
        preloaded: Preloaded,
        job: Job,
        variables: Mapping[str, str],
        start: "Callable[[int], subprocess.Popen[bytes]]",
    ) -> None:
        reader, self._log = os.pipe()
        self.stdout = open(reader, "rb")  # noqa: SIM115 read by a thread until the last writer has gone
        self._preloaded, self._start = preloaded, start
        self._number = preloaded.ask(job, variables, self._log)
        self._has_log, self._is_cancelled = True, False
        self._started: subprocess.Popen[bytes] | None = None

    def poll(self) -> int | None:
        """Exit code, negative for a signal, once it has ended."""
        if self._started is not None:
            return self._started.poll()
        pid, code = self._preloaded.pid(self._number), self._preloaded.code(self._number)
        if pid is None and self._preloaded.is_gone():
            if self._is_cancelled:
                code = -signal.SIGTERM
            else:
                self._started = self._start(self._log)
        if pid is not None or self._started is not None or code is not None:
            self._drop_log()
        return code

    def terminate(self) -> None:
        """Ask it to end. One that is not forked yet never will be."""
        pid = self._preloaded.pid(self._number)
        if self._started is not None:
            self._started.terminate()
        elif pid is None:
            self._is_cancelled = True
            self._preloaded.close()
        elif self._preloaded.code(self._number) is None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)

    def _drop_log(self) -> None:
        """What the agent writes has another writer now, and ends with it."""
        if self._has_log:
            self._has_log = False
            os.close(self._log)
