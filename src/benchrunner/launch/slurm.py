"""`launcher=slurm`: each cell is a job of its own, submitted through submitit."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Collection, Mapping
from typing import Any

from benchrunner.core.errors import UsageError
from benchrunner.core.schema import LauncherConfig
from benchrunner.core.secrets import without_secrets
from benchrunner.launch.job import Job, rank_pids, write_job
from benchrunner.launch.variables import job_environment

ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "OUT_OF_MEMORY", "NODE_FAIL", "PREEMPTED", "BOOT_FAIL")
WAITING = ("PENDING", "CONFIGURING", "UNKNOWN")
"""Of a job that has no node yet, or that Slurm's accounting has not heard of."""


class SlurmLauncher:
    """Submits one job a cell: a task a node, each of which runs the agent (torchrun) over the node's devices.

    The sweep's directory must be on a file system that all nodes share.

    Raises:
        UsageError: submitit is not installed.
    """

    is_local = False

    def __init__(self, config: LauncherConfig, executor: Callable[[str], Any] | None = None) -> None:
        self._config = config
        self._executor = executor or _slurm_executor()

    def start(self, job: Job) -> "SlurmHandle":
        """See Launcher."""
        write_job(job)
        executor = self._executor(str(job.paths.root / "slurm"))
        executor.update_parameters(**self._parameters(job))
        root, sizes = str(job.paths.root.resolve()), job.cell.sizes
        passed = tuple(job.cell.config.launcher.pass_env)
        return SlurmHandle(job, executor.submit(run_agent, root, sizes.devices, sizes.nodes, _variables(job), passed))

    def close(self) -> None:
        """See Launcher. Nothing is kept."""

    def _parameters(self, job: Job) -> dict[str, Any]:
        sizes, config = job.cell.sizes, self._config
        wanted = {
            "job_name": f"bench-{job.cell.cell_id}",
            "nodes": sizes.nodes,
            "ntasks_per_node": 1,
            "gpus_per_node": sizes.devices if job.hardware["device_type"] == "cuda" else None,
            "cpus_per_task": config.cpus_per_task,
            "partition": config.partition,
            "account": config.account,
            "time": config.time_min,
        }
        return {name: value for name, value in wanted.items() if value is not None}


class SlurmHandle:
    """A submitted job."""

    def __init__(self, job: Job, submitted: Any) -> None:
        self._job, self._submitted = job, submitted

    def poll(self) -> int | None:
        """See Handle."""
        state = str(self._submitted.state).partition(" ")[0]
        if not self._submitted.done() and state not in ENDED:
            return None
        return 0 if state == "COMPLETED" or (state == "FINISHED" and self._submitted.exception() is None) else 1

    def is_waiting(self) -> bool:
        """See Handle."""
        return str(self._submitted.state).startswith(WAITING)

    def terminate(self) -> None:
        """See Handle. Slurm sends SIGTERM, and SIGKILL after its own KillWait."""
        self._submitted.cancel(check=False)

    def kill(self) -> None:
        """See Handle."""
        self._submitted.cancel(check=False)

    def dump_stacks(self) -> None:
        """See Handle. Only the ranks listen; the batch shell and the agent are left alone."""
        signalled = [sys.executable, "-m", "benchrunner.launch.slurm", *map(str, rank_pids(self._job.paths))]
        command = ["srun", f"--jobid={self._submitted.job_id}", "--overlap", "--ntasks-per-node=1", *signalled]
        subprocess.run(command, check=False, capture_output=True, timeout=10)

    def pids(self) -> list[int]:
        """See Handle. None of them is on this host."""
        return []

    def num_oom_kills(self) -> int:
        """See Handle."""
        return int(str(self._submitted.state).startswith("OUT_OF_ME"))


def _slurm_executor() -> Callable[[str], Any]:
    try:
        import submitit
    except ImportError as error:
        message = "needs the package submitit; install the extra benchrunner[slurm]"
        raise UsageError(f"launcher: slurm {message}") from error
    executor: Callable[[str], Any] = submitit.SlurmExecutor
    return executor


def _variables(job: Job) -> dict[str, str]:
    """What the job gets beside the node's own environment; Slurm hands out the devices, and secrets go into no file."""
    env = job_environment(job, os.environ)
    own = {"CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", *job.cell.config.launcher.pass_env}
    return {name: value for name, value in env.items() if name not in own}


def run_agent(root: str, devices: int, nodes: int, variables: Mapping[str, str], passed: Collection[str] = ()) -> int:
    """On a node: run the agent and return its exit code. Slurm's own variables win over those of the submitting host.

    `passed`: names of variables that the job gets from the node's environment, as they may hold secrets.

    Raises:
        RuntimeError: the agent failed.
    """
    here = without_secrets(os.environ, passed)
    env = {**variables, **{name: here[name] for name in here if name in passed or name.startswith(("SLURM", "CUDA_"))}}
    env["BENCH_PARENT_PID"] = str(os.getpid())
    command = [sys.executable, "-m", "benchrunner.worker.agent", root, str(devices), *rendezvous(nodes)]
    with open(os.path.join(root, "agent.log"), "a", encoding="utf-8") as log:
        code = subprocess.run(command, env=env, stdout=log, stderr=subprocess.STDOUT, check=False).returncode
    if code:
        raise RuntimeError(f"the agent ended with code {code}")
    return code


def rendezvous(nodes: int) -> list[str]:
    """torchrun's words for a job over several nodes: the first node of the allocation, a port of this job's own."""
    if nodes == 1:
        return []
    listed = ["scontrol", "show", "hostnames", os.environ["SLURM_JOB_NODELIST"]]
    first = subprocess.run(listed, check=True, capture_output=True, text=True).stdout.split()[0]
    job_id = os.environ["SLURM_JOB_ID"]
    port = 20_000 + int(job_id) % 20_000
    return [f"--nnodes={nodes}", "--rdzv-backend=c10d", f"--rdzv-id={job_id}", f"--rdzv-endpoint={first}:{port}"]


if __name__ == "__main__":
    for pid in sys.argv[1:]:
        os.kill(int(pid), signal.SIGUSR1)
