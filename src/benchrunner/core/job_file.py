"""cell.json: the job that the ranks of an attempt read, written by the run that started it."""

from pathlib import Path
from typing import Any, Required, cast

from typing_extensions import TypedDict

from benchrunner.core.files import read_bytes, read_json
from benchrunner.core.plain_json import parse
from benchrunner.core.units import MIB

JOB_FILE_BYTES = 16 * MIB

MARKER_VARIABLE = "BENCH_ATTEMPT"
"""In the environment of an attempt's every process, grandchildren included: its unique marker."""
NO_MARKER = "0" * 32
"""Where one is to be written later: as long as `uuid4().hex`."""

PARENT_VARIABLE = "BENCH_PARENT_PID"
"""In the environment of a process that leads a job: who started it, so that it knows when that has gone."""


class Machine(TypedDict, total=False):
    """What ranks and records need to know of the machine; the whole of it is `machine.hardware.Hardware`."""

    device_type: Required[str]
    """cuda | cpu"""
    num_devices: int
    memory_bandwidth_bytes_per_second: float | None
    peak_flops: dict[str, float]
    """Dense FLOP/s by dtype."""


class JobFile(TypedDict):
    """One attempt at a cell."""

    cell: dict[str, Any]
    """See `core.cell.cell_to_dict`."""
    hardware: Machine
    attempt: int
    marker: str
    """In the environment of every process of the attempt."""
    fault: str | None
    devices: list[int]
    started_at: str
    """ISO 8601, UTC."""


def read_job(path: Path) -> JobFile:
    """The job of an attempt that another run started.

    Raises:
        FileNotFoundError: there is none.
        DamagedFile: it is no job.
    """
    return read_json(path, JobFile, limit_bytes=JOB_FILE_BYTES)


def read_own_job(path: Path) -> JobFile:
    """The same for its ranks: their own parent wrote it a second ago, and types take longer to load than to trust.

    Raises:
        DamagedFile: it is no JSON.
    """
    return cast(JobFile, parse(read_bytes(path, limit_bytes=JOB_FILE_BYTES)))
