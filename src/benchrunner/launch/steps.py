"""Jobs in an allocation of several Slurm nodes: an agent a node, started and ended through srun.

`python -m benchrunner.launch.steps kill MARKER` and `… stacks MARKER ATTEMPT` are what it runs on the nodes.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchrunner.core.paths import AttemptPaths
from benchrunner.launch.job import Job, rank_pids, write_job
from benchrunner.launch.processes import kill_marked, marked_pids, num_oom_kills, send_signal
from benchrunner.launch.variables import job_environment

GRACE_S = 5.0
"""From SIGTERM to the agents to SIGKILL for everything."""

REACH_S = 30.0
"""A node that does not answer for so long is Slurm's to deal with."""


class StepLauncher:
    """See Launcher. A job is a step of the allocation, on the nodes that it was given."""

    is_local = True

    def __init__(self, nodes: Sequence[str]) -> None:
        self._nodes = list(nodes)
        self.num_nodes = len(nodes)

    def start(self, job: Job) -> "StepHandle":
        """See Launcher."""
        write_job(job)
        names = [self._nodes[index] for index in job.nodes]
        agent = [sys.executable, "-m", "benchrunner.worker.agent", str(job.paths.root.resolve())]
        words = [*srun(names), *agent, str(job.cell.sizes.devices), *rendezvous(names, job.marker)]
        environ = job_environment(job, os.environ)
        environ.pop("SLURM_CPU_BIND", None)
        with open(job.paths.agent_log, "ab") as log:
            process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environ, start_new_session=True
            )
        return StepHandle(job, names, process)

    def close(self) -> None:
        """See Launcher. Nothing is kept."""


class StepHandle:
    """A step, and the agents of its nodes."""

    def __init__(self, job: Job, names: Sequence[str], process: "subprocess.Popen[bytes]") -> None:
        self._job, self._names, self._process = job, names, process
        self._kill_at: float | None = None
        self._oom_kills_before = num_oom_kills()

    def poll(self) -> int | None:
        """See Handle."""
        code = self._process.poll()
        if code is None and self._kill_at is not None and time.monotonic() >= self._kill_at:
            self.kill()
        return code

    def is_waiting(self) -> bool:
        """See Handle."""
        return False

    def terminate(self) -> None:
        """See Handle. srun passes the signal on to the agents."""
        if self._kill_at is None:
            self._kill_at = time.monotonic() + GRACE_S
            send_signal([self._process.pid], signal.SIGTERM)

    def kill(self) -> None:
        """See Handle."""
        self._kill_at = None
        self._on_nodes("kill", self._job.marker)
        kill_marked(self._job.marker)

    def dump_stacks(self) -> None:
        """See Handle."""
        self._on_nodes("stacks", self._job.marker, str(self._job.paths.root.resolve()))

    def pids(self) -> list[int]:
        """See Handle. Most of them are on other hosts, where they cannot be told from here."""
        return []

    def num_oom_kills(self) -> int:
        """See Handle. Of this host alone."""
        now = num_oom_kills()
        return 0 if now is None or self._oom_kills_before is None else now - self._oom_kills_before

    def _on_nodes(self, *words: str) -> None:
        command = [*srun(self._names), sys.executable, "-m", "benchrunner.launch.steps", *words]
        try:
            subprocess.run(command, check=False, capture_output=True, stdin=subprocess.DEVNULL, timeout=REACH_S)
        except subprocess.TimeoutExpired:
            print(f"nodes do not answer: {words[0]}", file=sys.stderr)


def srun(names: Sequence[str]) -> list[str]:
    """A task a node, beside whatever else runs in the allocation."""
    count = str(len(names))
    where = [f"--nodes={count}", f"--ntasks={count}", "--ntasks-per-node=1", f"--nodelist={','.join(names)}"]
    return ["srun", "--overlap", "--cpu-bind=none", "--mem=0", *where]


def rendezvous(names: Sequence[str], marker: str) -> list[str]:
    """torchrun's words for a job over several nodes: the first of them, and a port of this attempt's own."""
    if len(names) == 1:
        return []
    port = 20_000 + int(marker[:8], 16) % 12_000
    return [
        f"--nnodes={len(names)}",
        "--rdzv-backend=c10d",
        f"--rdzv-id={marker}",
        f"--rdzv-endpoint={names[0]}:{port}",
    ]


def _main(what: str, marker: str, attempt: str = "") -> None:
    if what == "kill":
        kill_marked(marker)
    else:
        ranks = set(rank_pids(AttemptPaths(Path(attempt))))
        send_signal(ranks & set(marked_pids(marker)), signal.SIGUSR1)


if __name__ == "__main__":
    _main(*sys.argv[1:])
