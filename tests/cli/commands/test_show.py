from dataclasses import replace

import pytest

from benchrunner.cli.commands import show
from benchrunner.cli.commands.show import find_cell
from benchrunner.core.errors import UsageError
from benchrunner.core.paths import SweepPaths
from benchrunner.report.cell_text import cell_sections
from samples import make_rows


def test_a_cell_is_found_by_its_id_or_a_part_of_its_name():
    rows = make_rows()
    assert rows[1].status == "oom" and find_cell(rows, None) is rows[5], "a failure before what merely does not fit"
    assert find_cell(rows[:5], None) is rows[1] and find_cell(rows[:1], None) is rows[0]
    assert rows[4].status == "skipped" and find_cell([rows[0], rows[4]], None) is rows[0]
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


@pytest.mark.parametrize(
    ("rows", "wanted", "said"),
    [
        (7, "inductor", "3 cells match 'inductor'; name one of {2}, {5}, {6}, …"),
        (7, "nowhere", "no cell matches 'nowhere'; cells are {0}, {1}, {2}, {3}, {4}, …"),
    ],
)
def test_what_may_be_named_is_said(rows, wanted, said):
    rows = make_rows()[:rows]
    with pytest.raises(UsageError) as refused:
        find_cell(rows, wanted)
    assert str(refused.value) == said.format(*(row.planned.cell.slug for row in rows))


def test_the_end_of_a_name_is_enough_where_it_is_a_part_of_others():
    first, second = make_rows()[:2]
    slugs = [f"odd-{second.planned.cell.slug[-6:]}-one", second.planned.cell.slug]
    renamed = [
        replace(row, planned=replace(row.planned, cell=replace(row.planned.cell, slug=slug)))
        for row, slug in zip((first, second), slugs, strict=True)
    ]
    assert find_cell(renamed, second.planned.cell.slug[-6:]) is renamed[1]


def test_a_cell_is_shown_with_what_isolates_it(bench, sweep, monkeypatch):
    monkeypatch.setattr(
        show, "isolation_lines", lambda row, rows, paths: [f"{row.planned.cell.slug} of {len(rows)}, {paths.root}"]
    )
    code, out, _, _ = bench("show", sweep, "ddp")
    assert code == 0 and "skipped.predicted_oom" in out and "What it takes" not in out
    assert bench("show", sweep)[1] == bench("show", sweep, "single")[1] != out, "the first one"
    out = bench("show", sweep, "ddp", "--isolate")[1]
    assert "What it takes to be skipped.predicted_oom" in out and f"of 2, {sweep}" in out


def test_what_the_sweep_expects_of_a_cell_is_shown(bench, sweep, monkeypatch):
    place = "benchrunner.report.expectations"
    monkeypatch.setattr(f"{place}.judge_expectations", lambda rows, hardware: (rows, hardware))
    monkeypatch.setattr(
        f"{place}.expected_of",
        lambda judged: {judged[0][1].planned.cell.cell_id: [f"less than {len(judged[0])} on {judged[1].device_type}"]},
    )
    assert "less than 2 on cpu" in bench("show", sweep, "ddp")[1]
    assert "less than" not in bench("show", sweep, "single")[1]


@pytest.mark.parametrize("words", [[], [".", "a", "b"]])
def test_show_takes_a_sweep_and_a_cell(refused, words):
    refused(["show", *words], "show needs a sweep and a cell, e.g. bench show outputs/latest 2fd597$")


def test_show_needs_a_sweep(refused):
    refused(["show", "nowhere", "."], "nowhere: no such directory$")
