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
from benchrunner.run.schedule import Pool


class Attempts:
    """Makes the next attempt at a cell. `names_devices`: jobs are told which devices are theirs."""

    def __init__(
        self, paths: SweepPaths, hardware: Hardware, options: RunOptions, pool: Pool, *, names_devices: bool
    ) -> None:
        self._paths, self._hardware, self._options = paths, hardware, options
        self._pool, self._names_devices = pool, names_devices

    def next_job(self, planned: PlannedCell, places: tuple[int, ...], above: int = 0) -> Job:
        """The job that runs a cell once more, on these places of the pool; `above`: the attempt that its record is of.

        It is never numbered like another one that left anything.
        """
        self._paths.require()
        place = self._paths.cell(planned.place)
        number = max(above, place.last_attempt()) + 1
        nodes, devices = self._pool.located(places)
        return Job(
            cell=planned.cell,
            paths=place.attempt(number),
            devices=devices[: planned.cell.sizes.devices] if self._names_devices else (),
            nodes=nodes[: planned.cell.sizes.nodes],
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
