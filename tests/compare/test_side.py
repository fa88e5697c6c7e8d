"""A sweep as the gates read it: what cannot be read is a note, and everything else counts."""

from benchrunner.compare.side import read_side
from fake_sweeps import cells
from samples import make_record
from sides import write_sweep


def test_files_that_cannot_be_read_are_notes(tmp_path):
    planned = cells(2)
    paths = write_sweep(tmp_path, planned, [make_record(one.cell) for one in planned])
    assert read_side(paths).notes == []
    paths.environment.write_text("{")
    paths.cell(planned[0].place).record.write_text("{")
    side = read_side(paths)
    record, environment = side.notes
    assert planned[0].cell.slug in record and environment.startswith("environment.json is damaged: ")
    assert [one.status for one in side.cells.values()] == ["skipped", "ok"]
