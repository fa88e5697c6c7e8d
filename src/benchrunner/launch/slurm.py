"""`launcher=slurm`: allocations by sbatch, squeue and scancel, with or without accounting."""

import shlex
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from benchrunner.core.errors import UsageError
from benchrunner.core.node_list import expand
from benchrunner.core.schema import LauncherConfig
from benchrunner.core.text import first_line
from benchrunner.launch.allocation import LOG_FOLDER, End, JobState, Request

Run = Callable[[Sequence[str]], "subprocess.CompletedProcess[str]"]

ANSWER_S = 60.0
"""After so long a command of Slurm's is given up: its controller does not answer."""

WAITING = frozenset({"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD"})
ENDS: Mapping[str, End] = {
    "COMPLETED": "completed",
    "FAILED": "failed",
    "SPECIAL_EXIT": "failed",
    "CANCELLED": "cancelled",
    "REVOKED": "cancelled",
    "TIMEOUT": "time_limit",
    "DEADLINE": "time_limit",
    "PREEMPTED": "preempted",
    "NODE_FAIL": "node_failed",
    "BOOT_FAIL": "node_failed",
    "OUT_OF_MEMORY": "out_of_memory",
}
"""Slurm's word for a job that has ended → how. Every other one is of a job that runs."""

HOPELESS = frozenset({
    "PartitionConfig", "PartitionNodeLimit", "PartitionTimeLimit", "BadConstraints", "InvalidAccount", "InvalidQOS",
})  # fmt: skip
"""Reasons of a job that waits for ever: clusters without EnforcePartLimits take what they cannot give."""

OPTIONS = ("partition", "account", "qos", "constraint", "gres", "mem", "nodelist", "reservation", "cpus_per_task")
"""Keys of `launcher.` that are options of sbatch under the same name."""

BENCH_SETS: Mapping[str, str] = {
    "nodes": "launcher.nodes_per_job says how many",
    "time": "launcher.time_min says how long",
    "array": "launcher.jobs says how many",
    "ntasks": "a worker leads all of an allocation",
    "ntasks-per-node": "a worker leads all of an allocation",
    "output": "logs lie in the sweep's directory",
    "error": "logs lie in the sweep's directory",
    "wrap": "bench runs its own command",
    "wait": "--detach says whether bench waits",
    "parsable": "bench reads the answer",
    "test-only": "bench plan submits nothing",
}
"""Options of sbatch that would work against this program, each with what to do instead."""


class SlurmAllocator:
    """See Allocator. `run` runs a command of Slurm's."""

    def __init__(self, config: LauncherConfig, run: Run | None = None) -> None:
        self._config = config
        self._run = run or _run
        self._num_submitted = 0

    def submit(self, sweep: Path, request: Request) -> str:
        """See Allocator."""
        _require_free(self._config.sbatch)
        folder = sweep.resolve() / LOG_FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        script = folder / f"{request.name}.sh"
        script.write_text(self._script(request), encoding="utf-8")
        done = self._asked(["sbatch", "--parsable", *self.options(request, folder), str(script)])
        self._num_submitted += 1
        return done.stdout.strip().partition(";")[0]

    def poll(self, sweep: Path, jobs: Iterable[str]) -> Mapping[str, JobState]:
        """See Allocator. A job that has ended is forgotten after minutes (MinJobAge): then accounting is asked."""
        wanted = list(jobs)
        if not wanted:
            return {}
        states = self._list(["--states=all", f"--jobs={','.join(wanted)}"])
        if states is None and (everything := self._list(["--states=all"])) is not None:
            states = {job: state for job, state in everything.items() if job in wanted}
        if states is None:
            return {}
        return {**{job: self._forgotten(job) for job in wanted if job not in states}, **states}

    def cancel(self, sweep: Path, jobs: Iterable[str]) -> None:
        """See Allocator."""
        for job in jobs:
            self._run(["scancel", job])

    def logs(self, sweep: Path, job: str) -> str:
        """See Allocator."""
        try:
            return (sweep / LOG_FOLDER / f"{job}.log").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""

    def options(self, request: Request, folder: Path) -> list[str]:
        """What sbatch is told."""
        config = self._config
        chosen = {name: getattr(config, name) for name in OPTIONS}
        given = {name: str(value) for name, value in chosen.items() if value is not None}
        if config.nodelist is not None:
            given["nodelist"] = self._nodes(config.nodelist, request.nodes)
        if request.gpus_per_node and config.gres is None:
            given["gpus_per_node"] = str(request.gpus_per_node)
        given |= {
            "job_name": request.name,
            "nodes": str(request.nodes),
            "ntasks_per_node": "1",
            "time": str(request.time_min),
            "output": str(folder / "%j.log"),
            "open_mode": "append",
            **config.sbatch,
        }
        flags = ["--exclusive"] if config.exclusive else []
        return [*flags, *(_option(name, value) for name, value in given.items())]

    def _nodes(self, listed: str, count: int) -> str:
        """As many of the listed nodes as an allocation has, in turn: Slurm wants all that it is given in each."""
        names = expand(listed)
        if len(names) <= count:
            return listed
        first = self._num_submitted * count
        return ",".join(names[number % len(names)] for number in range(first, first + count))

    def _script(self, request: Request) -> str:
        """`exec`: the command is the batch step's own process, so that a signal to the job reaches it."""
        lines = ["#!/bin/bash", *self._config.setup, 'export BENCH_JOB="$SLURM_JOB_ID"']
        return "\n".join([*lines, f"exec {shlex.join(request.command)}", ""])

    def _asked(self, command: Sequence[str]) -> "subprocess.CompletedProcess[str]":
        done = self._run(command)
        if done.returncode:
            said = first_line(done.stderr.replace("sbatch: error: ", "")) or f"exit code {done.returncode}"
            raise UsageError(f"launcher=slurm: {command[0]} refuses the allocation: {said}{_hint(done.stderr)}")
        return done

    def _list(self, which: Sequence[str]) -> dict[str, JobState] | None:
        """Job → state by squeue; None where it does not answer, or knows none of them."""
        done = self._run(["squeue", "--noheader", "--format=%i|%T|%r", *which])
        if done.returncode:
            return None
        words = (line.strip().split("|") for line in done.stdout.splitlines() if line.count("|") == 2)
        return {job: _state(name, why) for job, name, why in words}

    def _forgotten(self, job: str) -> JobState:
        """By sacct, whose complaints nobody needs; without accounting it has ended, somehow."""
        done = self._run(["sacct", "--noheader", "--parsable2", "--allocations", f"--jobs={job}", "--format=State"])
        name = (done.stdout.split() or [""])[0] if done.returncode == 0 else ""
        found = _state(name, "") if name else JobState(phase="ended", end="unknown")
        return found if found.phase == "ended" else JobState(phase="ended", end="unknown", detail=name)


def _require_free(sbatch: Iterable[str]) -> None:
    for key in sbatch:
        if (why := BENCH_SETS.get(key.replace("_", "-"))) is not None:
            raise UsageError(f"launcher.sbatch.{key}: bench sets this itself ({why})")


def _state(name: str, why: str) -> JobState:
    detail = "" if why in ("None", "") else why
    if name in WAITING:
        return JobState(phase="waiting", detail=detail, is_hopeless=detail in HOPELESS)
    if name in ENDS:
        return JobState(phase="ended", end=ENDS[name], detail=detail)
    return JobState(phase="running", detail=name)


def _option(name: str, value: str) -> str:
    flag = f"--{name.replace('_', '-')}"
    return flag if value == "" else f"{flag}={value}"


HINTS = {
    "partition": "launcher.partition",
    "qos": "launcher.qos",
    "account": "launcher.account",
    "feature": "launcher.constraint",
    "gres": "launcher.gres or launcher.gpus_per_node",
    "reservation": "launcher.reservation",
    "node name": "launcher.nodelist",
    "time limit": "launcher.time_min",
    "memory": "launcher.mem",
    "unrecognized option": "launcher.sbatch",
    "node count": "launcher.nodes_per_job",
    "number of nodes": "launcher.nodes_per_job",
    "node configuration": "launcher.nodes_per_job, launcher.gres, launcher.mem, launcher.cpus_per_task",
}
"""What sbatch's complaint speaks of → the key to look at."""


def _hint(said: str) -> str:
    keys = [key for words, key in HINTS.items() if words in said.lower()]
    return f" (see {keys[0]})" if keys else ""


def _run(command: Sequence[str]) -> "subprocess.CompletedProcess[str]":
    try:
        return subprocess.run(
            command, check=False, capture_output=True, encoding="utf-8", errors="replace", timeout=ANSWER_S
        )
    except FileNotFoundError:
        return subprocess.CompletedProcess(command, 127, "", f"{command[0]} is not installed on this host")
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 124, "", f"{command[0]} does not answer")
