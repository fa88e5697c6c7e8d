"""The seam to a cluster: whoever can submit a command to it, poll, cancel and read its log can be a launcher."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

End = Literal["completed", "failed", "cancelled", "time_limit", "preempted", "node_failed", "out_of_memory", "unknown"]
"""How an allocation ended; unknown: it has, and nobody can say how."""

LOG_FOLDER = "allocations"
"""In a sweep's directory: scripts and logs of its allocations."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What an allocation is to be, and the command that it runs once, on its first node."""

    name: str
    command: Sequence[str]
    """Its words. The variable BENCH_JOB must hold the allocation's id, the same when it is started again."""
    nodes: int = 1
    gpus_per_node: int = 0
    time_min: int = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class JobState:
    """Where an allocation is."""

    phase: Literal["waiting", "running", "ended"]
    end: End | None = None
    """Of one that has ended."""
    detail: str = ""
    """What the cluster says of it, e.g. why it waits."""
    is_hopeless: bool = False
    """Whether it waits for what the cluster never has."""


def hopeless_text(why: str) -> str:
    """What is said of an allocation that can never start; `why` in the cluster's word."""
    return f"launcher: what it asks for no node of the cluster ever has ({why})"


class Allocator(Protocol):
    """Asks a cluster for allocations. `sweep` is the sweep's directory, which all nodes see."""

    def submit(self, sweep: Path, request: Request) -> str:
        """Ask for an allocation; its id.

        Raises:
            UsageError: the cluster refuses it, in its own words.
        """

    def poll(self, sweep: Path, jobs: Iterable[str]) -> Mapping[str, JobState]:
        """Where these are. One of which nothing can be said now (the cluster does not answer) is left out."""

    def cancel(self, sweep: Path, jobs: Iterable[str]) -> None:
        """End these: SIGTERM to the command, later SIGKILL to all of it. Of one that has ended, nothing."""

    def logs(self, sweep: Path, job: str) -> str:
        """What the command wrote, standard output and error; empty where there is nothing."""
