"""The allocations of a sweep: submitted, adopted, asked about, cancelled, and what their ends mean for workers."""

import re
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from benchrunner.core.errors import UsageError
from benchrunner.core.paths import SweepPaths
from benchrunner.core.scrub import scrub_text
from benchrunner.core.text import first_line
from benchrunner.launch.allocation import LOG_FOLDER, Allocator, End, JobState, Request
from benchrunner.outcome.signatures import last_meaningful_line
from benchrunner.store import allocations_file, workers

NODE = re.compile(
    r"(?<= ON )\S+(?= [A-Z]+ (?:AT|DUE) )|(?<=slurmstepd-)[\w.-]+(?=:)"
    r"|(?<=srun: error: )\S+(?=: tasks? )|(?<=Node failure on )\S+"
)
"""How Slurm names nodes in what it adds to a log. Where the job was submitted nobody else knows their names."""


def last_words(log: str) -> str:
    """The last line of a job's log that says something, without the names of nodes."""
    lines = log.splitlines()[-40:]
    return first_line(NODE.sub("<host>", last_meaningful_line(lines) or "its log is empty"), 160)


class Allocations:
    """Job id → where it is."""

    def __init__(self, allocator: Allocator, paths: SweepPaths, launcher: str) -> None:
        self.states: dict[str, JobState] = {}
        """Of this run's jobs."""
        self._allocator, self._paths, self._launcher = allocator, paths, launcher
        self._current: list[str] = []
        """Those that were adopted, or submitted last."""
        self._cancelled: set[str] = set()
        """By this bench."""
        self._kept = allocations_file.read_jobs(paths, launcher)

    def adopt(self) -> list[str]:
        """Take over the jobs of an earlier run that have not ended; which they are.

        Raises:
            UsageError: the cluster does not answer.
        """
        found = self._allocator.poll(self._paths.root, self._kept)
        if len(found) < len(self._kept):
            raise UsageError(f"the cluster does not answer about the jobs of {self._paths.root}; try again later")
        self._declare(found)
        self.states = {job: state for job, state in found.items() if state.phase != "ended"}
        self._current = list(self.states)
        return self._current

    def submit(self, request: Request, count: int) -> list[str]:
        """Ask for so many allocations. Each id is on disk before the next one is asked for.

        Raises:
            UsageError: the cluster refuses; those that it had granted are cancelled.
        """
        made: list[str] = []
        try:
            for _ in range(count):
                named = replace(request, name=f"{request.name}-{secrets.token_hex(3)}")
                made.append(self._allocator.submit(self._paths.root, named))
                self._kept.append(made[-1])
                allocations_file.write_jobs(self._paths, self._launcher, self._kept)
        except BaseException:
            self._allocator.cancel(self._paths.root, made)
            raise
        self.states |= dict.fromkeys(made, JobState(phase="waiting"))
        self._current = made
        return made

    def poll(self) -> None:
        """Ask about those that have not ended; who worked in one that has is gone."""
        found = self._allocator.poll(self._paths.root, self._alive())
        self.states |= found
        self._declare(found)

    def cancel(self, phases: Sequence[str] = ("waiting", "running")) -> None:
        """End those that are in these phases."""
        chosen = [job for job in self._alive() if self.states[job].phase in phases]
        if chosen:
            self._allocator.cancel(self._paths.root, chosen)
            self._cancelled.update(chosen)

    def ends(self) -> set[End | None]:
        """How the newest ones ended, but for those that this bench cancelled itself."""
        return {self.states[job].end for job in self._current if job not in self._cancelled}

    def last(self) -> str:
        """The newest job that says how it ended; empty: there was none."""
        told = [job for job in self.states if job not in self._cancelled]
        return (told or list(self.states) or [""])[-1]

    def all_ended(self) -> bool:
        """Whether nothing of this run is left in the cluster."""
        return not self._alive()

    def hopeless(self) -> str | None:
        """What they all wait for that the cluster never has; None: one of them runs, or may."""
        states = [self.states[job] for job in self._alive()]
        return states[0].detail if states and all(state.is_hopeless for state in states) else None

    def describe(self) -> str:
        """`2 running, 1 waiting (Resources)`."""
        parts = []
        for phase in ("running", "waiting", "ended"):
            chosen = [state for state in self.states.values() if state.phase == phase]
            why = sorted({state.detail for state in chosen if state.detail}) if phase == "waiting" else []
            if chosen:
                parts.append(f"{len(chosen)} {phase}" + (f" ({', '.join(why)})" if why else ""))
        return ", ".join(parts) or "none"

    def last_words(self, job: str) -> str:
        """The last line of a job's log that says something."""
        return last_words(self._allocator.logs(self._paths.root, job))

    def clean_logs(self) -> None:
        """Take secrets and the names of hosts out of what jobs that have ended left in the sweep's directory."""
        for job in self.states.keys() - self._alive():
            path = self._paths.root / LOG_FOLDER / f"{job}.log"
            with suppress(OSError):
                text = path.read_text(encoding="utf-8", errors="surrogateescape")
                if (clean := scrub_text(NODE.sub("<host>", text))) != text:
                    path.write_text(clean, encoding="utf-8", errors="surrogateescape")

    def _alive(self) -> list[str]:
        return [job for job, state in self.states.items() if state.phase != "ended"]

    def _declare(self, found: Mapping[str, JobState]) -> None:
        ended = {job for job, state in found.items() if state.phase == "ended"}
        for worker in workers.read_workers(self._paths) if ended else ():
            if worker.job in ended and worker.state == "working":
                workers.declare_gone(self._paths, worker.worker)
