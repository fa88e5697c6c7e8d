"""environment.json: what a sweep was measured with, and whether this machine is still that."""

from collections.abc import Callable, Mapping

from benchrunner.core.environment import Environment
from benchrunner.core.errors import DamagedFile, SweepDirError
from benchrunner.core.files import read_json, write_json
from benchrunner.core.paths import SweepPaths
from benchrunner.core.record import Record
from benchrunner.core.units import MIB

ENVIRONMENT_BYTES = 8 * MIB

COMPARED_VALUES: dict[str, Callable[[Environment], str | None]] = {
    "benchrunner": lambda found: found.get("benchrunner"),
    "torch": lambda found: found.get("versions", {}).get("torch"),
    "driver": lambda found: found.get("driver"),
    "GPU": lambda found: ", ".join(sorted({gpu.get("name") or "unknown" for gpu in found.get("gpus", [])})) or None,
}
"""What must be equal for two numbers to stand in one table → where the environment says it."""

COMMIT: dict[str, Callable[[Environment], str | None]] = {"commit": lambda found: found.get("git", {}).get("commit")}


def settle_environment(
    paths: SweepPaths,
    now: Environment,
    records: Mapping[str, Record],
    *,
    resume: bool,
    mix: bool,
    same_commit: bool = False,
) -> tuple[Environment, list[str], list[str]]:
    """The environment of the records to be made, their flags, and what a reader must know.

    With `same_commit`, another commit of this program is something else too.

    A damaged file is replaced: by what a record was measured with, or where there is none by what is here.

    Raises:
        SweepDirError: the sweep was measured with something else, and nobody said `mix`.
    """
    found, problem = read_environment(paths)
    before = found or next((record.environment for record in records.values() if record.environment), now)
    notes = _replace(paths, before, problem) if found is None else []
    changes = environment_changes(before, now, same_commit=same_commit) if resume else []
    if not changes:
        return before, [], notes
    if not mix:
        raise SweepDirError(f"{paths.root} was measured with {'; '.join(changes)}; resume with --mix to mix them")
    return now, ["mixed_environment"], notes


def read_environment(paths: SweepPaths) -> tuple[Environment | None, str | None]:
    """What the sweep was measured with, or what is wrong with the file; neither when there is none."""
    try:
        return read_json(paths.environment, Environment, limit_bytes=ENVIRONMENT_BYTES), None
    except FileNotFoundError:
        return None, None
    except DamagedFile as error:
        return None, str(error)


def _replace(paths: SweepPaths, environment: Environment, problem: str | None) -> list[str]:
    """Write the file; what a reader must know of it. A sweep goes on without: every record has its environment too."""
    name = paths.environment.name
    try:
        write_json(paths.environment, environment)
    except OSError as error:
        return [f"{name} cannot be written ({error.strerror})" + (f" and is damaged: {problem}" if problem else "")]
    return [f"{name} is damaged and was replaced: {problem}"] if problem else []


def environment_changes(before: Environment, now: Environment, *, same_commit: bool = False) -> list[str]:
    """What makes numbers of two environments incomparable: `torch 2.11, here 2.13`, …

    `same_commit`: further processes of the same cells are to come, and are of the same program then.
    """
    compared = {**COMPARED_VALUES, **(COMMIT if same_commit else {})}
    pairs = {name: (read(before), read(now)) for name, read in compared.items()}
    return [f"{name} {old or 'none'}, here {new or 'none'}" for name, (old, new) in pairs.items() if old != new]
