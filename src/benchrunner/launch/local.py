"""The Launcher seam: how a cell's job is started, watched and ended. Here: torchrun on this machine."""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress

from benchrunner.core.text import plain
from benchrunner.launch.job import Job, rank_pids, write_job
from benchrunner.launch.processes import kill_marked, marked_pids, num_oom_kills, send_signal
from benchrunner.launch.variables import job_environment

GRACE_S = 5.0
"""From SIGTERM to the agent to SIGKILL for everything."""

DRAIN_S = 10.0
"""After SIGKILL a process that is still there is stuck in the kernel and given up."""


class LocalLauncher:
    """torchrun on this machine, through `worker/agent.py`."""

    is_local = True
    num_nodes = 1

    def start(self, job: Job) -> "LocalHandle":
        """Write `cell.json` and spawn the agent in a session of its own: Ctrl-C is for bench alone."""
        write_job(job)
        root = str(job.paths.root.resolve())
        process = subprocess.Popen(
            [sys.executable, "-m", "benchrunner.worker.agent", root, str(job.cell.sizes.devices)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=job_environment(job, os.environ) | {"BENCH_PARENT_PID": str(os.getpid())},
            start_new_session=True,
        )
        return LocalHandle(job, process)


class LocalHandle:
    """The agent of one job and everything below it."""

    def __init__(self, job: Job, process: "subprocess.Popen[bytes]") -> None:
        self._job = job
        self._process = process
        self._kill_at: float | None = None
        self._give_up_at: float | None = None
        self._oom_kills_before = num_oom_kills()
        self._log = threading.Thread(target=self._copy_log, daemon=True)
        self._log.start()

    def poll(self) -> int | None:
        """See Handle."""
        code, now = self._process.poll(), time.monotonic()
        if code is None and self._kill_at is not None and now >= self._kill_at:
            self.kill()
        if (code is None or self.pids()) and not self._is_given_up(now):
            if code is not None:
                self.kill()
            return None
        self._log.join(timeout=1.0)
        return -signal.SIGKILL if code is None else code

    def is_waiting(self) -> bool:
        """See Handle."""
        return False

    def terminate(self) -> None:
        """See Handle."""
        if self._kill_at is None:
            self._kill_at = time.monotonic() + GRACE_S
            send_signal([self._process.pid], signal.SIGTERM)

    def kill(self) -> None:
        """See Handle."""
        if self._give_up_at is None:
            self._give_up_at = time.monotonic() + DRAIN_S
        kill_marked(self._job.marker)

    def dump_stacks(self) -> None:
        """See Handle. Only ranks that wrote their file listen to the signal; it would end another process."""
        send_signal(set(rank_pids(self._job.paths)) & set(self.pids()), signal.SIGUSR1)

    def pids(self) -> list[int]:
        """See Handle."""
        return marked_pids(self._job.marker)

    def num_oom_kills(self) -> int:
        """See Handle."""
        now = num_oom_kills()
        return 0 if now is None or self._oom_kills_before is None else now - self._oom_kills_before

    def _is_given_up(self, now: float) -> bool:
        return self._give_up_at is not None and now >= self._give_up_at

    def _copy_log(self) -> None:
        """The agent's lines into `agent.log`, cleaned as they pass; on a full disk the pipe is emptied still."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with suppress(OSError), open(self._job.paths.agent_log, "a", encoding="utf-8") as log:
                log.write(plain(line.decode("utf-8", errors="replace")))


# --- the environment of a job --------------------------------------------------------------------------------------
