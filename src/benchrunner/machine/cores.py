"""The cores that an allocation was given. Where the cluster binds no job to its own, the job does so itself: the locks
on cores, and the threads of a cell, go by the cores that a process may use.
"""

import os
import re
import subprocess
from collections.abc import Callable, Mapping

from benchrunner.core.node_list import expand, numbers

ANSWER_S = 30.0
"""A controller that takes longer is not waited for."""

GIVEN = re.compile(r"\bNodes=(\S+) CPU_IDs=(\S+)")
"""In `scontrol show job --details`: which cores of which nodes."""


def bind_to_allocation(environ: Mapping[str, str], ask: Callable[[str], str] | None = None) -> None:
    """Keep this process, and all that it starts, to the cores that Slurm gave its job on this node.

    Does nothing where the cluster has done so (`task/affinity`, `task/cgroup`), where the job has all cores, or where
    nobody can say which ones it has. `ask(job)` gives what Slurm knows of a job.
    """
    visible, count = sorted(os.sched_getaffinity(0)), environ.get("SLURM_CPUS_ON_NODE", "")
    if not count.isdecimal() or not 0 < int(count) < len(visible):
        return
    told = (ask or _ask)(environ.get("SLURM_JOB_ID", ""))
    cores = given_cores(told, environ.get("SLURMD_NODENAME", ""))
    if len(cores) == int(count) and max(cores) < len(visible):
        os.sched_setaffinity(0, {visible[core] for core in cores})


def given_cores(told: str, node: str) -> set[int]:
    """The cores of a node that a job has, as Slurm counts them: from 0, whatever their numbers are."""
    return {
        int(core) for nodes, cores in GIVEN.findall(told) if node in expand(nodes) for core in numbers(cores)
        if core.isdecimal()
    }  # fmt: skip


def _ask(job: str) -> str:
    command = ["scontrol", "--oneliner", "--details", "show", "job", job]
    try:
        return subprocess.run(
            command, check=False, capture_output=True, encoding="utf-8", errors="replace", timeout=ANSWER_S
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""
