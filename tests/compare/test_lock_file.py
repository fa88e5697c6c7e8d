"""The lock is reviewable text, reads back as it was written, and a damaged one is named in a line."""

from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest

from benchrunner.compare import lock_file
from benchrunner.compare.lock_file import doubts, lock_of, lock_path, lock_text, read_lock, write_lock
from benchrunner.compare.side import MeasuredCell, Side
from benchrunner.compare.verify import verify
from benchrunner.core.errors import SweepDirError, UsageError
from benchrunner.core.paths import CHECKOUT, SweepPaths
from fake_sweeps import cells, make_plan
from samples import make_cell, make_record, plan_cell
from sides import make_side

OOM = ("oom", "oom.device", "rank 0 ran out of memory")


@pytest.fixture
def side(tmp_path):
    first, second = cells(2)
    return make_side(tmp_path, [(first, ("ok",)), (second, OOM)])


def test_a_cell_is_a_line_that_reads_back(side, tmp_path):
    path = tmp_path / "x.lock"
    shown = write_lock(path, lock_of(side))
    assert shown[:2] == [f"--- {path} before", f"+++ {path} now"]
    assert [line[1:] for line in shown[2:]] == path.read_text().splitlines()
    assert read_lock(path) == lock_of(side)
    first, second = (one.planned.cell for one in side.cells.values())
    assert path.read_text().splitlines()[-2:] == [
        f'  - {{cell_id: "{first.cell_id}", status: ok, cell: "{first.slug}"}}',
        f'  - {{cell_id: "{second.cell_id}", status: oom, reason_code: "oom.device", cell: "{second.slug}"}}',
    ]


def test_what_is_bad_or_was_planted_is_said_when_it_is_locked(side, tmp_path):
    assert doubts(side) == [], "running out of memory is a verdict like another"
    (one,) = cells(1)
    record = make_record(one.cell, "failed", "failed.exit", "rank 0 exited", fault="exit")
    found = doubts(replace(side, cells={one.cell.cell_id: MeasuredCell(planned=one, records=[record])}))
    assert found == [
        "expected from now on: 1 failed; such a cell that is ok fails bench verify",
        "1 of the cells had a planted fault (BENCH_FAULT)",
    ]


def test_an_id_of_digits_stays_a_text(side, tmp_path):
    lock = lock_of(side)
    lock["cells"][0]["cell_id"] = "012345671234"
    write_lock(tmp_path / "x.lock", lock)
    assert read_lock(tmp_path / "x.lock")["cells"][0]["cell_id"] == "012345671234"


def test_writing_again_shows_the_lines_that_changed(side, tmp_path):
    path, lock = tmp_path / "x.lock", lock_of(side)
    write_lock(path, lock)
    assert write_lock(path, lock) == []
    lock["cells"][0] |= {"status": "failed", "reason_code": "failed.exception"}
    changed = [line for line in write_lock(path, lock) if not line.startswith(("---", "+++"))]
    assert [line[0] for line in changed] == ["-", "+"]
    assert "status: ok" in changed[0] and "failed.exception" in changed[1]


def test_a_sweep_that_is_not_finished_has_no_lock(tmp_path):
    first, second = cells(2)
    side = make_side(tmp_path, [(first, ("ok",)), (second, None)])
    with pytest.raises(SweepDirError, match=r"1 of 2 cells have no verdict yet .*bench resume"):
        lock_of(side)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "schema_version None"),
        ("a: [", r"x.lock: not YAML: while parsing"),
        ("\ufffe", "not YAML"),
        ("schema_version: 2\nsweep: x\nhardware: x\ncells: []", "schema_version 2"),
        ("schema_version: 1\nsweep: x\nhardware: x\ncells: [1]", "not a lock: cells.0"),
        ("schema_version: 1\nsweep: x\nhardware: x\ncells: [{cell_id: a, status: fine, cell: s}]", "cells.0.status"),
        ("schema_version: 1\nsweep: x\nhardware: 2026-11-21\ncells: []", "not a lock"),
    ],
)
def test_what_is_no_lock_is_named(tmp_path, text, message):
    (tmp_path / "x.lock").write_text(text)
    with pytest.raises(UsageError, match=message):
        read_lock(tmp_path / "x.lock")


def test_what_is_no_text_is_not_written_over(side, tmp_path):
    path = tmp_path / "x.lock"
    path.write_bytes(b"\xff")
    with pytest.raises(UsageError, match="not YAML"):
        write_lock(path, lock_of(side))
    assert path.read_bytes() == b"\xff"


def test_names_stand_in_it_as_they_are(side):
    assert 'sweep: "größe"' in lock_text(lock_of(side) | {"sweep": "größe"})


def test_a_cell_that_stands_twice_is_named(side, tmp_path):
    text = lock_text(lock_of(side))
    (tmp_path / "x.lock").write_text(text + text.splitlines()[-1])
    with pytest.raises(UsageError, match="stands in it twice"):
        read_lock(tmp_path / "x.lock")


def test_where_there_is_no_lock_or_no_place_for_one_is_said(side, tmp_path, monkeypatch):
    with pytest.raises(UsageError, match=r"x.lock: no such file; bench lock DIR writes it from a finished sweep$"):
        read_lock(tmp_path / "x.lock")
    with pytest.raises(UsageError, match=rf"^{tmp_path}: a directory is in its place"):
        write_lock(tmp_path, lock_of(side))
    for error, said in ((OSError(28, "No space left"), "No space left"), (OSError("odd"), "odd")):
        monkeypatch.setattr(lock_file, "write_text", Mock(side_effect=error))
        with pytest.raises(UsageError, match=rf"x.lock: cannot be written: {said}$"):
            write_lock(tmp_path / "x.lock", lock_of(side))


def test_the_whole_lock_of_a_sweep(side):
    lock = lock_of(side)
    first, second = (one.planned.cell for one in side.cells.values())
    assert lock == {
        "schema_version": 1,
        "sweep": "cli",
        "hardware": "cpu",
        "cells": [
            {"status": "ok", "reason_code": None, "cell_id": first.cell_id, "cell": first.slug},
            {"status": "oom", "reason_code": "oom.device", "cell_id": second.cell_id, "cell": second.slug},
        ],
    }
    assert lock_text(lock).splitlines()[2:6] == ["schema_version: 1", 'sweep: "cli"', 'hardware: "cpu"', "cells:"]


@pytest.mark.parametrize(
    ("arguments", "place"),
    [
        (["my/nightly.yaml", "seq_len=8"], Path("my/nightly.lock")),
        (["-m", "seq_len=8", "my/nightly.yml"], Path("my/nightly.lock")),
        (["+sweeps=smoke"], CHECKOUT / "sweeps" / "smoke.lock"),
        (["+sweeps=none"], Path("none.lock")),
    ],
)
def test_it_is_beside_the_file_of_the_sweep(side, arguments, place):
    assert lock_path(replace(side, plan=replace(side.plan, arguments=arguments))) == place


@pytest.mark.parametrize("arguments", [[], ["model.source=a.yaml"], ["-m", "strategy=single,ddp"]])
def test_matrices_of_the_command_line_do_not_share_a_lock(side, arguments):
    with pytest.raises(UsageError, match=r"^--lock: .* is of the command line .*e.g. --lock mine.lock, or put"):
        lock_path(replace(side, plan=replace(side.plan, arguments=arguments)))


def test_a_search_is_locked_and_its_probes_are_not():
    search = plan_cell(make_cell(leaves={"micro_batch_size": "max"}))
    probe = replace(plan_cell(make_cell(leaves={"micro_batch_size": 8})), probe_of=search.cell.slug)
    cells = [MeasuredCell(planned=one, records=[make_record(one.cell)]) for one in (search, probe)]
    side = Side(
        paths=SweepPaths(Path("nowhere")),
        plan=make_plan([search, probe]),
        cells={one.planned.cell.cell_id: one for one in cells},
    )
    lock = lock_of(side)
    assert [one["cell_id"] for one in lock["cells"]] == [search.cell.cell_id]
    assert verify(side, lock, "one.lock").deviations == []
