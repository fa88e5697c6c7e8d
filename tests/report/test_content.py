import pytest

from benchrunner.report.content import cost_by_phase_s, cost_sentence, make_tables
from samples import make_cell, make_record, make_row


def record(launch_s, status="ok"):
    phases = {"start": 4.0, "build": 1.0, "measure": 2.0}
    return make_record(make_cell(), status, phases_s=phases, wall_s=7.0 + launch_s)


def test_what_is_in_no_phase_is_launch():
    cost = cost_by_phase_s(record(3.0))
    assert cost["launch"] == 3.0 and cost["start"] == 4.0 and cost["check"] == 0.0


def test_medians_over_the_cells_that_ran_to_their_end():
    sentence = cost_sentence([record(1.0), record(3.0), record(9.0), record(99.0, status="failed")])
    assert sentence.startswith(
        "Median seconds by phase of the 3 cells that are ok: launch 3.00, start 4.00, build 1.00"
    )


def test_nothing_is_said_where_nothing_ran():
    assert cost_sentence([make_record(make_cell(), phases_s={})]) is None


# --- what stands above and below the tables


def rows_of(*statuses, **changes):
    cells = [make_cell(leaves={"seed": seed}) for seed in range(len(statuses))]
    codes = {"ok": (None, None)}
    return [
        make_row(cell, make_record(cell, status, *codes.get(status, (f"{status}.x", "r")), **changes))
        for cell, status in zip(cells, statuses, strict=True)
    ]


def test_the_cells_are_counted_and_what_they_share_is_said_once():
    tables = make_tables("t", rows_of("ok", "oom", "oom"), ["a note"], [], ["PARTIAL"])
    assert (tables.title, tables.banner, tables.notes[0]) == ("t", ["PARTIAL"], "a note")
    assert tables.summary[0] == "3 cells: 2 oom, 1 ok."
    assert tables.summary[1].startswith("All cells: ") and "model debug" in tables.summary[1]
    assert make_tables("t", rows_of("ok"), [], []).summary[0] == "1 cell: 1 ok."
    shared = [make_row(make_cell(strategy=name, leaves={"seed": 3})) for name in ("single", "ddp")]
    assert "Settings of all cells: seed=3." in make_tables("t", shared, [], []).summary


def test_what_cells_cost_is_said_of_those_that_ran():
    phases = {"build": 1.0, "measure": 2.0}
    summary = make_tables("t", rows_of("ok", "oom", phases_s=phases, wall_s=5.0), [], []).summary
    (said,) = [text for text in summary if text.startswith("Median seconds")]
    assert "of the 1 cell that is ok: launch 2.00, start 0.00, build 1.00" in said and "measure 2.00" in said
    assert not [text for text in make_tables("t", rows_of("oom"), [], []).summary if "Median" in text]


def test_a_cell_that_is_ok_against_a_rule_is_named_and_no_other():
    rows = rows_of("ok", "failed", flags=["probe:nf4_train"])
    notes = make_tables("t", [*rows, *rows_of("ok")], [], []).notes
    said = [note for note in notes if "impossible" in note]
    slug = rows[0].planned.cell.slug
    assert said == [f"{slug} ran and is ok although a rule calls it impossible (probe:nf4_train)"]


@pytest.mark.parametrize(
    ("statuses", "said"),
    [(["ok"], "1 cell that is ok"), (["ok", "ok", "oom"], "2 cells that are ok"), (["oom"], None)],
)
def test_planted_faults_are_counted(statuses, said):
    notes = make_tables("t", rows_of(*statuses, fault="slow"), [], []).notes
    found = [note for note in notes if "planted" in note]
    assert [note.partition(" had ")[0] for note in found] == ([said] if said else [])


def test_what_nothing_counts_here_is_named():
    notes = make_tables("t", rows_of("ok"), [], []).notes
    assert "MFU % is unknown here: no peak or counter for it" in notes


def test_what_was_published_and_expected_is_kept():
    published, judged = object(), object()
    tables = make_tables("t", rows_of("ok"), [], [], published=[published], expectations=[judged], roots={"a": "b/"})
    assert (tables.published, tables.expectations, tables.roots) == ([published], [judged], {"a": "b/"})


def test_settings_that_vary_stand_behind_the_results_and_matrices_have_every_pair():
    tables = make_tables("t", rows_of("ok", "oom"), [], [])
    assert tables.results["config.seed"].tolist() == ["0", "1"] and tables.results["status"].tolist() == ["ok", "oom"]
    assert tables.reasons["reason_code"].tolist() == ["oom.x"] and len(tables.rows) == 2
    assert len(tables.compatibility) > 0 and len(tables.matrices) >= 1 and tables.roots == {}


@pytest.mark.parametrize(("wall_s", "phases", "known"), [(None, {"build": 1.0}, False), (3.0, {}, False),
                                                         (0.5, {"build": 1.0}, True)])  # fmt: skip
def test_a_cost_needs_its_seconds_and_is_never_below_zero(wall_s, phases, known):
    cost = cost_by_phase_s(make_record(make_cell(), phases_s=phases, wall_s=wall_s))
    assert (cost is not None) is known and (not known or cost["launch"] == 0.0)
