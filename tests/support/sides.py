"""Sweeps on disk with the records that a test wants, as the gates read them."""

from benchrunner.compare.side import read_side
from benchrunner.core.files import write_json
from benchrunner.core.paths import SweepPaths
from benchrunner.core.record import record_to_dict
from benchrunner.store.plan_file import write_plan
from fake_sweeps import ENVIRONMENT, make_plan
from samples import CPU, make_record


def write_sweep(out_dir, planned, records, *, environment=ENVIRONMENT, hardware=CPU):
    """A sweep's directory: planned cells, and records made by `samples.make_record`."""
    paths = SweepPaths(write_plan(make_plan(planned, hardware), out_dir))
    write_json(paths.environment, environment)
    for record in records:
        place = paths.cell(record.place).record
        place.parent.mkdir(parents=True, exist_ok=True)
        write_json(place, record_to_dict(record))
    return paths


def make_side(out_dir, verdicts, **more):
    """The side of a sweep: planned cell → what `make_record` takes after the cell, None: no record."""
    records = [make_record(one.cell, *given) for one, given in verdicts if given is not None]
    return read_side(write_sweep(out_dir, [one for one, _ in verdicts], records, **more))


def timed(cell, seconds, **changes):
    """The records of a cell that is ok, one a process, each of so many seconds a token."""
    return [
        make_record(cell, repeat=number, metrics={"tokens_per_second_per_device": 1 / s} | changes.get("metrics", {}),
                    **{key: value for key, value in changes.items() if key != "metrics"})
        for number, s in enumerate(seconds, start=1)
    ]  # fmt: skip


def timed_side(out_dir, times, **more):
    """The side of a sweep: planned cell → seconds a token of each process, or records."""
    records = [
        record for one, found in times for record in (timed(one.cell, found) if isinstance(found, tuple) else found)
    ]
    return read_side(write_sweep(out_dir, [one for one, _ in times], records, **more))
