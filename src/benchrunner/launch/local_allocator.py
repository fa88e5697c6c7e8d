"""Allocations that are processes of this machine: `launcher=detached`, and the shortest example of a launcher."""

import os
import signal
import subprocess
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from benchrunner.launch.allocation import LOG_FOLDER, End, JobState, Request
from benchrunner.launch.processes import send_signal

ENDS: Mapping[int, End] = {0: "completed", 143: "cancelled"}
"""Exit code → how it ended; any other: failed."""

SCRIPT = """
export BENCH_JOB=$$
"$@" >"$0/$$.log" 2>&1 &
trap "kill $!" TERM
wait $!
wait $!  # a signal ends the first one
echo $? >"$0/$$.tmp"
mv "$0/$$.tmp" "$0/$$.code"
"""


class LocalAllocator:
    """See Allocator. A job's id is its process id; its exit code is left in a file, as whoever asks may be another."""

    def submit(self, sweep: Path, request: Request) -> str:
        """See Allocator."""
        folder = sweep / LOG_FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        process = subprocess.Popen(
            ["bash", "-c", SCRIPT, str(folder), *request.command], stdin=subprocess.DEVNULL, start_new_session=True
        )
        return str(process.pid)

    def poll(self, sweep: Path, jobs: Iterable[str]) -> Mapping[str, JobState]:
        """See Allocator."""
        return {job: _state(sweep / LOG_FOLDER / f"{job}.code", int(job)) for job in jobs}

    def cancel(self, sweep: Path, jobs: Iterable[str]) -> None:
        """See Allocator."""
        send_signal([int(job) for job in jobs if _is_there(int(job))], signal.SIGTERM)

    def logs(self, sweep: Path, job: str) -> str:
        """See Allocator."""
        with suppress(OSError):
            return (sweep / LOG_FOLDER / f"{job}.log").read_text(encoding="utf-8", errors="replace")
        return ""


def _state(code_file: Path, pid: int) -> JobState:
    if _is_there(pid) and not code_file.exists():
        return JobState(phase="running")
    with suppress(OSError, ValueError):
        return JobState(phase="ended", end=ENDS.get(int(code_file.read_text(encoding="utf-8")), "failed"))
    return JobState(phase="ended", end="unknown")


def _is_there(pid: int) -> bool:
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
