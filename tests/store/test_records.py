"""Which records of a sweep are read, and what is said of those that are not."""

import json
from dataclasses import replace

import pytest

from benchrunner.core.paths import SweepPaths
from benchrunner.core.record import record_to_dict
from benchrunner.store.records import read_record, read_records
from samples import make_cell, make_record, plan_cell


@pytest.fixture
def paths(tmp_path):
    return SweepPaths(tmp_path)


def write(paths, planned, **changes):
    path = paths.cell(planned.place).record
    path.parent.mkdir(parents=True)
    made = make_record(planned.cell, repeat=planned.repeat)
    path.write_text(json.dumps(record_to_dict(made) | changes))
    return path, made


def test_every_process_has_a_record_of_its_own(paths):
    first = plan_cell(make_cell())
    second, other = replace(first, repeat=2), plan_cell(make_cell(leaves={"seed": 1}))
    (_, one), (_, two) = write(paths, first), write(paths, second)
    assert read_records([first, second, other], paths) == ({first.place: one, second.place: two}, [])


def test_where_there_are_no_cells_there_is_no_record(paths):
    assert read_records([plan_cell(make_cell())], paths) == ({}, [])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"schema_version": 99}, "cells/{place}/record.json is damaged: "),
        ({"cell_id": "0" * 50}, f"cells/{{place}}/record.json belongs to another cell ({'0' * 39}…) and was skipped"),
        (
            {"config_digest": "1" * 50},
            f"cells/{{place}}/record.json was made with another configuration ({'1' * 39}…) and was skipped",
        ),
    ],
)
def test_a_record_that_is_not_the_cells_own_is_named(paths, changes, said):
    planned, other = plan_cell(make_cell()), plan_cell(make_cell(leaves={"seed": 1}))
    path, _ = write(paths, planned, **changes)
    _, kept = write(paths, other)
    record, problem = read_record(path, planned)
    assert record is None and problem.startswith(said.format(place=planned.place))
    assert read_records([planned, other], paths) == ({other.place: kept}, [problem])
