import pytest

from benchrunner.cli.commands.show import find_cell
from benchrunner.core.errors import UsageError
from benchrunner.core.paths import SweepPaths
from benchrunner.report.cell_text import cell_sections
from samples import make_rows


def test_a_cell_is_found_by_its_id_or_a_part_of_its_name():
    rows = make_rows()
    assert rows[1].status == "oom" and find_cell(rows, None) is rows[5], "a failure before what merely does not fit"
    assert find_cell(rows[:5], None) is rows[1] and find_cell(rows[:1], None) is rows[0]
    assert find_cell(rows, rows[3].planned.cell.cell_id) is rows[3]
    assert find_cell(rows, rows[3].planned.cell.slug[-6:]) is rows[3]
    assert find_cell(rows, "nf4") is rows[3]
    with pytest.raises(UsageError, match="3 cells match 'inductor'"):
        find_cell(rows, "inductor")
    with pytest.raises(UsageError, match="no cell matches"):
        find_cell(rows, "nowhere")


def test_everything_about_a_cell_that_broke(tmp_path):
    rows = make_rows()
    logs = tmp_path / rows[1].log_folder
    logs.mkdir(parents=True)
    (logs / "rank1.err").write_text("\x1b[31mfirst\n  CUDA out of memory\n")
    sections = dict(cell_sections(rows[1], rows, SweepPaths(tmp_path)))
    assert sections["Cell"][1:3] == ["oom", "oom.device: rank 1 ran out of memory: 80.1 of 80.0 GiB"]
    assert sections["End of rank1.err"] == ["first", "  CUDA out of memory"]
    assert sections["Run it again"][0].startswith("bench model=debug")
    assert "strategy=single (not ddp)" in sections["Nearest cell that works"][0]


def test_a_cell_that_never_ran_has_a_verdict_too(tmp_path):
    rows = make_rows()
    sections = dict(cell_sections(rows[4], rows, SweepPaths(tmp_path)))
    assert sections["Cell"][1] == "skipped" and "Checks" not in sections
