"""Jobs on this machine: how they are started, watched and ended."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import IO, Protocol

from benchrunner.core.job_file import PARENT_VARIABLE
from benchrunner.core.text import plain
from benchrunner.launch.job import Job, rank_pids, write_job
from benchrunner.launch.preloaded import READ_LATE, ForkedAgent, Preloaded
from benchrunner.launch.processes import kill_marked, marked_pids, num_oom_kills, send_signal
from benchrunner.launch.variables import job_environment

GRACE_S = 5.0
"""From SIGTERM to the agent to SIGKILL for everything."""

LONGEST_LINE_BYTES = 1 << 16
"""A longer line comes in pieces."""

DRAIN_S = 10.0
"""After SIGKILL a process that is still there is stuck in the kernel and given up."""


MOST_PRELOADED = 2
"""Processes with torch loaded (300 MiB each) that are kept: jobs on a CPU differ by their threads."""


class LocalLauncher:
    """Jobs on this machine, led by `worker/agent.py`.

    With `preload` their processes are forked from one that has torch loaded, where that is possible; else torchrun
    starts each anew.
    """

    is_local = True
    num_nodes = 1

    def __init__(self, *, preload: bool = True) -> None:
        self._preloads = preload
        self._preloaded: dict[frozenset[tuple[str, str]], Preloaded] = {}

    def start(self, job: Job) -> "LocalHandle":
        """Write `cell.json` and have an agent begin, in a session of its own: Ctrl-C is for bench alone."""
        write_job(job)
        env = job_environment(job, os.environ)
        start = partial(_start_agent, job, env)
        preloaded = self._preloaded_for(env) if self._preloads else None
        if preloaded is None:
            return LocalHandle(job, start(subprocess.PIPE))
        own = {name: env[name] for name in READ_LATE if name in env}
        return LocalHandle(job, ForkedAgent(preloaded, job, own, start))

    def close(self) -> None:
        """See Launcher."""
        for preloaded in self._preloaded.values():
            preloaded.close()
        self._preloaded.clear()

    def _preloaded_for(self, env: Mapping[str, str]) -> Preloaded | None:
        """A process with this environment; None once one has gone before it could fork anything."""
        key = frozenset((name, value) for name, value in env.items() if name not in READ_LATE)
        known = self._preloaded.pop(key, None)
        if known is not None and known.is_gone():
            self._preloads, known = known.has_forked(), None
            if not self._preloads:
                return None
        self._make_room()
        self._preloaded[key] = known or Preloaded(env)
        return self._preloaded[key]

    def _make_room(self) -> None:
        """End the one that was not asked for longest."""
        idle = [key for key, preloaded in self._preloaded.items() if preloaded.is_idle()]
        if len(self._preloaded) >= MOST_PRELOADED and idle:
            self._preloaded.pop(idle[0]).close()


def _start_agent(job: Job, env: Mapping[str, str], log: int) -> "subprocess.Popen[bytes]":
    """An agent that imports torch itself and lets torchrun start the ranks."""
    root = str(job.paths.root.resolve())
    return subprocess.Popen(
        [sys.executable, "-m", "benchrunner.worker.agent", root, str(job.cell.sizes.devices)],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        env={**env, PARENT_VARIABLE: str(os.getpid())},
        start_new_session=True,
    )


class Agent(Protocol):
    """What a handle wants of the process that leads a job, as Popen has it."""

    @property
    def stdout(self) -> IO[bytes] | None:
        """What it and its ranks' launcher say."""

    def poll(self) -> int | None:
        """Exit code once it has ended."""

    def terminate(self) -> None:
        """SIGTERM, if it is still there."""


class LocalHandle:
    """The agent of one job and everything below it."""

    def __init__(self, job: Job, agent: Agent) -> None:
        self._job = job
        self._agent = agent
        self._kill_at: float | None = None
        self._give_up_at: float | None = None
        self._oom_kills_before = num_oom_kills()
        self._log = threading.Thread(target=self._copy_log, daemon=True)
        self._log.start()

    def poll(self) -> int | None:
        """See Handle."""
        code, now = self._agent.poll(), time.monotonic()
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
            self._agent.terminate()

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
        assert self._agent.stdout is not None
        with self._agent.stdout as said:
            for line in iter(partial(said.readline, LONGEST_LINE_BYTES), b""):
                with suppress(OSError), open(self._job.paths.agent_log, "a", encoding="utf-8") as log:
                    log.write(plain(line.decode("utf-8", errors="replace")))
