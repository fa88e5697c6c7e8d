"""A probe's file gives back the cell that its search tries, and is refused when it says another."""

import json
from dataclasses import replace

import pytest

from benchrunner.core.errors import SweepDirError
from benchrunner.core.paths import SweepPaths
from benchrunner.plan.plan import PlannedCell
from benchrunner.plan.search import probe_of
from benchrunner.store.probes import with_probes, write_probe
from fake_sweeps import make_plan
from samples import make_cell, plan_cell

SEARCH = make_cell(leaves={"micro_batch_size": "max"})


@pytest.fixture
def paths(tmp_path):
    return SweepPaths(tmp_path)


def probe(size):
    cell = replace(probe_of(SEARCH, size, {SEARCH.slug}), config_digest="of another version")
    return PlannedCell(cell=cell, flags=["tight"], predicted={"peak_memory_bytes": size}, probe_of=SEARCH.slug)


def read(paths):
    return with_probes(make_plan([plan_cell(SEARCH)]), paths).cells[1:]


def only_file(paths):
    [path] = paths.cell(SEARCH.slug).root.iterdir()
    return path


def test_probes_are_given_back_by_size(paths):
    written = [probe(size) for size in (12, 1, 8)]
    for one in (*written, written[0]):
        write_probe(paths, one)
    assert read(paths) == sorted(written, key=lambda one: one.cell.sizes.micro_batch_size)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"micro_batch_size": 0}, "damaged: micro_batch_size is 0"),
        ({"micro_batch_size": 9}, "damaged: its cell is not that of micro_batch_size=9; it was edited"),
        ({"slug": "other"}, "damaged: its cell is not that of micro_batch_size=8; it was edited"),
        ({"schema_version": 99}, "damaged"),
    ],
)
def test_a_probe_that_was_edited_is_refused(paths, changes, said):
    write_probe(paths, probe(8))
    path = only_file(paths)
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(SweepDirError) as refused:
        read(paths)
    assert str(refused.value).startswith(f"{path}: {said}")
