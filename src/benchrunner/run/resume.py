"""What a resumed sweep still has to run, and what attempts without a record left behind."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from benchrunner.core.errors import DamagedFile
from benchrunner.core.job_file import JobFile, read_job
from benchrunner.core.paths import AttemptPaths, SweepPaths
from benchrunner.core.record import Record
from benchrunner.launch.processes import is_watched, kill_marked
from benchrunner.launch.variables import drop_cold_cache
from benchrunner.machine.hardware import Hardware
from benchrunner.outcome.evidence import Evidence, gather
from benchrunner.outcome.make_record import Attempt
from benchrunner.plan.plan import PlannedCell
from benchrunner.plan.verdict import NO_PREDICTION, PREDICTED_ONLY
from benchrunner.run.log_cleaner import clean_logs

KEPT_STATUSES = frozenset({"ok", "invalid", "oom", "unsupported"})
"""Statuses that a resumed sweep keeps; the others run again."""

KEPT_CODES = frozenset({"skipped.predicted_oom", "skipped.excluded", PREDICTED_ONLY, NO_PREDICTION})


def is_kept(record: Record, planted: Collection[str] = ()) -> bool:
    """Whether a resumed sweep keeps this verdict instead of running the cell again.

    One that was made under a planted fault is kept only while the same is `planted`.
    """
    return (record.fault is None or record.fault in planted) and (
        record.status in KEPT_STATUSES or record.reason_code in KEPT_CODES
    )


def left_to_do(
    cells: Iterable[PlannedCell],
    records: Mapping[str, Record],
    hardware: Hardware,
    planted: Collection[str] = (),
    *,
    keep_inferred: bool = True,
) -> list[PlannedCell]:
    """The cells that are to be launched: planned to run, or skipped for devices that are here now; and not kept."""

    def is_settled(record: Record | None) -> bool:
        return record is not None and is_kept(record, planted) and (keep_inferred or "inferred" not in record.flags)

    runnable = [planned for planned in cells if planned.verdict == "run" or _has_devices_now(planned, hardware)]
    return [planned for planned in runnable if not is_settled(records.get(planned.place))]


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which of the cells that are left are run now."""

    statuses: frozenset[str] = frozenset()
    """Those that ended so; empty: any. A cell without a record is `skipped`."""
    cells: tuple[str, ...] = ()
    """Patterns (`*`, `?`, `[…]`) of a slug or id; empty: all."""

    def takes(self, planned: PlannedCell, record: Record | None) -> bool:
        """Whether a cell is run."""
        status = record.status if record else "skipped"
        names = (planned.cell.slug, planned.cell.cell_id)
        fits = any(fnmatchcase(name, pattern) for name in names for pattern in self.cells)
        return (not self.statuses or status in self.statuses) and (not self.cells or fits)


def _has_devices_now(planned: PlannedCell, hardware: Hardware) -> bool:
    on_gpus = hardware.is_present and hardware.device_type == "cuda"
    return planned.reason_code == "skipped.devices" and on_gpus and planned.cell.sizes.devices <= hardware.num_devices


# --- attempts without a record -------------------------------------------------------------------------------------


def recover(
    planned: PlannedCell, paths: SweepPaths, known: int = 0, *, note: Callable[[str], None]
) -> tuple[Evidence, Attempt] | None:
    """The newest attempt of a cell in which every rank reached its end although no record was written; else None.

    `known` is the attempt that the cell's record is of; `note` is told what is wrong with an attempt's job.

    Whatever such attempts left running or in their cold caches is removed, and their logs are cleaned.
    """
    numbers = [number for number in paths.cell(planned.place).attempts() if number > known]
    found = [_take_over(planned, paths, number, note) for number in reversed(numbers)]
    return next((one for one in found if one is not None), None)


def _take_over(
    planned: PlannedCell, paths: SweepPaths, number: int, note: Callable[[str], None]
) -> tuple[Evidence, Attempt] | None:
    attempt = paths.cell(planned.place).attempt(number)
    drop_cold_cache(attempt)
    try:
        job = read_job(attempt.cell)
        _require_own(job, planned)
        if is_watched(job["marker"]):  # this is a copy of a sweep that is being run
            return None
        kill_marked(job["marker"])
        clean_logs(attempt)
        evidence = gather(attempt, planned.cell.sizes.world_size, marker=job["marker"])
        return (evidence, _attempt(number, job, attempt)) if evidence.is_complete() else None
    except DamagedFile as error:
        note(f"cells/{planned.place}/{attempt.root.name}/{attempt.cell.name} is damaged: {error}")
    except OSError:  # killed before it wrote it: nothing to take over
        pass
    return None


def _require_own(job: JobFile, planned: PlannedCell) -> None:
    for name in ("cell_id", "config_digest"):
        if (found := job["cell"].get(name)) != getattr(planned.cell, name):
            raise DamagedFile(f"its cell's {name} is {found}, the plan's {getattr(planned.cell, name)}")


def _attempt(number: int, job: JobFile, paths: AttemptPaths) -> Attempt:
    return Attempt(
        number=number,
        started_at=job["started_at"],
        wall_s=max(0.0, paths.rank(0).stat().st_mtime - paths.cell.stat().st_mtime),
        devices=job["devices"],
        fault=job["fault"],
        hardware=job["hardware"],
    )
