"""The Launcher seam: how a cell's job is started, watched and ended. Here: torchrun on this machine."""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from benchrunner.cell import Cell, cell_to_dict
from benchrunner.faults import Fault, format_fault
from benchrunner.paths import AttemptPaths
from benchrunner.processes import MARKER_VARIABLE, kill_marked, marked_pids, num_oom_kills, send_signal
from benchrunner.record import write_json
from benchrunner.scrub import plain, scrub_environment

GRACE_S = 5.0
"""From SIGTERM to the agent to SIGKILL for everything."""

DRAIN_S = 10.0
"""After SIGKILL a process that is still there is stuck in the kernel and given up."""

MAX_THREADS = 16
"""OMP threads a rank beside a GPU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One attempt at a cell."""

    cell: Cell
    paths: AttemptPaths
    devices: tuple[int, ...]
    """Indices among the devices that this process sees; empty on CPU."""
    marker: str
    """Unique; in the environment of every process of the attempt."""
    hardware: Mapping[str, Any]
    attempt: int = 1
    fault: Fault | None = None
    started_at: str = ""
    """ISO 8601, UTC."""


class Handle(Protocol):
    """A running job."""

    def poll(self) -> int | None:
        """Exit code once every process of the job has gone, else null; also drives the kill path on."""

    def is_waiting(self) -> bool:
        """Whether the job waits in a queue that is not ours, so that its time has not begun."""

    def terminate(self) -> None:
        """Ask the job to end; what is left after a few seconds is killed by `poll`."""

    def kill(self) -> None:
        """End every process of the job now."""

    def dump_stacks(self) -> None:
        """Make every rank write its Python stacks to its error stream."""

    def pids(self) -> list[int]:
        """The processes of the job on this host."""

    def num_oom_kills(self) -> int:
        """How often the kernel killed for lack of memory while the job ran."""


class Launcher(Protocol):
    """Starts jobs."""

    is_local: bool
    """Whether jobs run on the devices of this machine; else their number is somebody else's business."""

    def start(self, job: Job) -> Handle:
        """Start a job. Called from the main thread only: the agent dies with the thread that spawned it."""


def write_job(job: Job) -> None:
    """The attempt's directory with `cell.json`: what the ranks read."""
    job.paths.root.mkdir(parents=True, exist_ok=True)
    document = {
        "cell": cell_to_dict(job.cell),
        "hardware": dict(job.hardware),
        "attempt": job.attempt,
        "marker": job.marker,
        "fault": format_fault(job.fault),
        "devices": list(job.devices),
        "started_at": job.started_at,
    }
    write_json(job.paths.cell, document)


class LocalLauncher:
    """torchrun on this machine, through `worker/agent.py`."""

    is_local = True

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


def rank_pids(paths: AttemptPaths) -> list[int]:
    """The process ids that the rank files name."""
    texts = [path.read_bytes() for path in paths.root.glob("rank*.json")]
    found = [re.search(rb'"pid": (\d+)', text) for text in texts]
    return [int(match[1]) for match in found if match]


# --- the environment of a job --------------------------------------------------------------------------------------


def job_environment(job: Job, environ: Mapping[str, str]) -> dict[str, str]:
    """What the job's processes get: ours without secrets, the job's devices, caches and threads, and the marker."""
    env = scrub_environment(environ)
    env |= device_variables(job, environ.get("CUDA_VISIBLE_DEVICES"))
    env |= cache_variables(job, environ)
    env[MARKER_VARIABLE] = job.marker
    env["PYTHONUNBUFFERED"] = "1"
    env.setdefault("OMP_NUM_THREADS", str(num_threads(job, len(os.sched_getaffinity(0)))))
    if job.hardware["device_type"] != "cuda":
        env.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads slow a shared CPU down a hundredfold
    if Path.cwd() != Path(__file__).parents[1]:
        env["PYTHONSAFEPATH"] = "1"  # a torch.py where the user stands must not shadow torch
    if job.cell.sizes.nodes == 1:
        env.setdefault("GLOO_SOCKET_IFNAME", "lo")  # else gloo resolves the host's name, which may have none
    return env


def device_variables(job: Job, visible: str | None) -> dict[str, str]:
    """CUDA_VISIBLE_DEVICES of the job, mapped through ours (indices or UUIDs); none for a CPU job."""
    if job.hardware["device_type"] != "cuda":
        return {"CUDA_VISIBLE_DEVICES": ""}
    names = [name.strip() for name in visible.split(",")] if visible else None
    chosen = [names[index] if names else str(index) for index in job.devices]
    return {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": ",".join(chosen)}


def cache_variables(job: Job, environ: Mapping[str, str]) -> dict[str, str]:
    """Inductor's and Triton's caches: the attempt's own for a cell that starts cold, else the user's shared ones.

    The shared ones are apart by attention back end: AOTAutograd's cache does not know which one a graph was traced
    under and would hand a cuDNN graph to a cell labelled flash.
    """
    shared = shared_cache(environ) / f"attention-{job.cell.get('attention')}"
    home = job.paths.cache.resolve() if starts_cold(job.cell) else shared
    return {"TORCHINDUCTOR_CACHE_DIR": str(home / "inductor"), "TRITON_CACHE_DIR": str(home / "triton")}


def starts_cold(cell: Cell) -> bool:
    """Whether the cell compiles into an empty cache, so that its compile time is comparable."""
    return bool(cell.axes["compile"] != "eager" and cell.get("compile.cache") == "cold")


def shared_cache(environ: Mapping[str, str]) -> Path:
    """One compile cache a user."""
    home = environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "benchrunner"


def drop_cold_cache(paths: AttemptPaths) -> None:
    """Remove the caches of a cell that started cold."""
    shutil.rmtree(paths.cache, ignore_errors=True)


def num_threads(job: Job, num_cores: int) -> int:
    """OMP threads of a rank: an equal share of the cores."""
    if job.hardware["device_type"] != "cuda":
        return max(1, num_cores // job.cell.sizes.devices)
    return max(1, min(MAX_THREADS, num_cores // max(1, int(job.hardware.get("num_devices") or 1))))


def launcher_for(config: Mapping[str, Any]) -> Launcher:
    """The launcher that `config["launcher"]` names.

    Raises:
        UsageError: its package is missing.
    """
    if config["launcher"]["name"] == "slurm":
        from benchrunner.slurm import SlurmLauncher

        return SlurmLauncher(config["launcher"])
    return LocalLauncher()
