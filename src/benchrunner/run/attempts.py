"""The attempts at cells: each as a job for the launcher, and as what its record says of it."""

import os
import uuid
from collections.abc import Sequence

from benchrunner.core.environment import Environment
from benchrunner.core.faults import format_fault
from benchrunner.core.paths import SweepPaths
from benchrunner.launch.job import Job
from benchrunner.launch.variables import job_environment
from benchrunner.machine import environment
from benchrunner.machine.hardware import Hardware, machine_facts
from benchrunner.outcome.make_record import Attempt
from benchrunner.plan.plan import PlannedCell
from benchrunner.run.clock import now_utc
from benchrunner.run.options import RunOptions


class Attempts:
    """Makes the next attempt at a cell. `names_devices`: jobs are told which devices are theirs."""

    def __init__(self, paths: SweepPaths, hardware: Hardware, options: RunOptions, *, names_devices: bool) -> None:
        self._paths, self._hardware, self._options, self._names_devices = paths, hardware, options, names_devices

    def next_job(self, planned: PlannedCell, places: tuple[int, ...], above: int = 0) -> Job:
        """The job that runs a cell once more, on these places of the pool; `above`: the attempt that its record is of.

        It is never numbered like another one that left anything.
        """
        place = self._paths.cell(planned.cell.slug)
        number = max(above, place.last_attempt()) + 1
        return Job(
            cell=planned.cell,
            paths=place.attempt(number),
            devices=places[: planned.cell.sizes.devices] if self._names_devices else (),
            marker=uuid.uuid4().hex,
            hardware=machine_facts(self._hardware),
            attempt=number,
            fault=self._options.fault_in(planned.cell.slug),
            started_at=now_utc(),
        )


def attempt_of(job: Job, wall_s: float, beside: Sequence[str] = ()) -> Attempt:
    """What the record says of a job that took so long, and of the cells that ran beside it."""
    return Attempt(
        number=job.attempt,
        started_at=job.started_at,
        wall_s=wall_s,
        devices=job.devices,
        beside=beside,
        fault=format_fault(job.fault),
        hardware=job.hardware,
        environment=_environment_of(job),
    )


def _environment_of(job: Job) -> Environment:
    """The variables that it got; none where that cannot be told, which is why it could not be started."""
    try:
        return {"variables": environment.variables(job_environment(job, os.environ))}
    except (OSError, RuntimeError):  # no working directory; no home
        return {}
