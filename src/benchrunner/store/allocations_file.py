"""allocations.json: the jobs that a cluster was asked for, for whoever comes later to adopt or cancel."""

from collections.abc import Sequence

from typing_extensions import TypedDict

from benchrunner.core.errors import DamagedFile, SweepDirError
from benchrunner.core.files import read_json, write_json
from benchrunner.core.paths import SweepPaths
from benchrunner.core.units import MIB


class AllocationsFile(TypedDict):
    """Oldest first."""

    launcher: str
    jobs: list[str]


def read_jobs(paths: SweepPaths, launcher: str) -> list[str]:
    """The ids of all jobs that were submitted for the sweep with this launcher.

    Raises:
        SweepDirError: nobody can say which they are.
    """
    try:
        found = read_json(paths.allocations, AllocationsFile, limit_bytes=MIB)
    except FileNotFoundError:
        return []
    except DamagedFile as error:
        raise SweepDirError(
            f"{paths.allocations} is damaged ({error}): see that no job of this sweep runs, and remove it"
        ) from error
    return found["jobs"] if found["launcher"] == launcher else []


def write_jobs(paths: SweepPaths, launcher: str, jobs: Sequence[str]) -> None:
    """Keep the ids.

    Raises:
        OSError: they cannot be written.
    """
    write_json(paths.allocations, AllocationsFile(launcher=launcher, jobs=list(jobs)))
