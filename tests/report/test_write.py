"""From a sweep's directory to its files: whole, half-finished, damaged, merged."""

import re
from dataclasses import replace

import pandas as pd
import pytest

from benchrunner.core.errors import SweepDirError
from benchrunner.core.files import write_json
from benchrunner.core.paths import SweepPaths
from benchrunner.core.record import record_to_dict
from benchrunner.plan.plan import Plan
from benchrunner.report import html, markdown, published, terminal
from benchrunner.report.content import make_tables
from benchrunner.report.write import make_report, merge_rows, read_sweep, tables_of
from benchrunner.store.plan_file import write_plan
from benchrunner.store.runs import ExitSummary, add_run
from reporting import write_report
from samples import CPU, H200, make_cell, make_record, make_row, plan_cell

ONE, TWO, THREE = make_cell(), make_cell(strategy="ddp"), make_cell(strategy="fsdp_stage3", precision="nf4")
FILES = ["compatibility.csv", "compatibility.md", "report.html", "results.csv", "results.md"]


@pytest.fixture
def sweep(tmp_path):
    return make_sweep(tmp_path)


def make_sweep(out_dir, hardware=CPU, **changes):
    planned = [plan_cell(ONE), plan_cell(TWO), plan_cell(THREE, "unsupported", "rule.nf4_train", "cannot train")]
    words = ["-m", "strategy=single,ddp"]
    made = Plan(
        cells=planned, hardware=hardware, sweep_name="cli", arguments=words, created_at="2026-11-21T03:00:00+00:00"
    )
    return SweepPaths(write_plan(replace(made, **changes), out_dir))


def put(sweep, record):
    path = sweep.cell(record.slug).record
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, record_to_dict(record))
    return path


def statuses(tables):
    return dict(zip(tables.results["slug"], tables.results["status"], strict=True))


def test_a_half_finished_sweep(sweep):
    put(sweep, make_record(ONE))
    tables = write_report([sweep])
    assert statuses(tables) == {ONE.slug: "ok", TWO.slug: "skipped", THREE.slug: "unsupported"}
    waiting = tables.results.set_index("slug").loc[TWO.slug]
    assert waiting["reason_code"] == "skipped.interrupted" and waiting["reason"].startswith("no record")
    assert sorted(path.name for path in sweep.root.iterdir() if path.suffix in (".csv", ".md", ".html")) == FILES
    assert len(pd.read_csv(sweep.table("results", "csv"))) == 3


def every_form(tables, capsys):
    """Name → what a reader gets, as one line."""
    terminal.print_tables(tables)
    forms = {
        "terminal": capsys.readouterr().out,
        "results.md": markdown.results_markdown(tables),
        "compatibility.md": markdown.compatibility_markdown(tables),
        "report.html": html.to_html(tables),
    }
    return {name: " ".join(text.split()) for name, text in forms.items()}


@pytest.mark.parametrize(
    ("run", "why"),
    [
        (None, "the sweep is still running, or bench was killed"),
        ({"interrupted_by": 2}, "the sweep was interrupted by SIGINT"),
        ({"stopped_by": "brake"}, "circuit breaker"),
        ({}, "they were not reached"),
    ],
)
def test_half_a_sweep_says_so_in_every_form(sweep, capsys, run, why):
    put(sweep, make_record(ONE))
    if run is not None:
        add_run(sweep, ExitSummary(counts={}, num_attempted=1, **run), "2026-11-21T03:00:00+00:00")
    for name, text in every_form(write_report([sweep]), capsys).items():
        assert "PARTIAL: 1 of 3 cells have no verdict" in text and why in text, name
        assert f"bench resume {sweep.root}" in text, name


def test_a_whole_sweep_has_no_banner(sweep, capsys):
    put(sweep, make_record(ONE))
    put(sweep, make_record(TWO, "failed", "failed.exception", "x"))
    assert not any("PARTIAL" in text for text in every_form(write_report([sweep]), capsys).values())


def test_a_budget_that_was_too_short_is_the_reason(sweep):
    for cell in (ONE, TWO):
        put(sweep, make_record(cell, "skipped", "skipped.budget", "not started", attempt=0))
    add_run(sweep, ExitSummary(counts={}, num_attempted=0), "2026-11-21T03:00:00+00:00")
    assert "2 of 3 cells have no verdict: they did not fit the budget" in write_report([sweep]).banner[0]


LEAVES = {
    "model.num_layers": 2, "model.dropout": 0.5, "micro_batch_size": 4, "seq_len": 64, "global_batch_size": 16,
    "compile.cache": "shared", "measure.steps": 5, "timeout_s": 300.0, "devices": 2, "nodes": 1, "optimizer.lr": 0.1,
}  # fmt: skip


@pytest.mark.parametrize("alone", [True, False], ids=["shared by all", "of one cell"])
@pytest.mark.parametrize("leaf", LEAVES)
def test_every_changed_leaf_stands_in_every_report(leaf, alone, capsys):
    changed = make_cell(strategy="ddp", leaves={leaf: LEAVES[leaf]})
    other = make_cell(strategy="fsdp_stage3", leaves={leaf: LEAVES[leaf]} if alone else {})
    card = {"num_layers": 32, "num_parameters": 7}
    rows = [replace(make_row(cell, make_record(cell)), card=card) for cell in (changed, other)]
    said = {
        "model.num_layers": "debug (2 of 32 layers)", "micro_batch_size": "micro-batch 4", "seq_len": "seq len 64",
    }  # fmt: skip
    value = LEAVES[leaf]
    for name, text in every_form(make_tables("t", rows, [], []), capsys).items():
        if alone or name not in ("compatibility.md",):
            shown = said.get(leaf, "global batch 16" if leaf == "global_batch_size" else f"{leaf}={value}")
            columns = {"micro_batch_size": "micro-batch", "seq_len": "seq", "global_batch_size": "global batch"}
            shown = shown if alone else columns.get(leaf, "world" if leaf in ("devices", "nodes") else shown)
            assert shown in text, (name, text)


def test_the_link_to_the_latest_sweep_is_not_its_name(sweep, tmp_path):
    put(sweep, make_record(ONE))
    latest = tmp_path / "latest"
    assert latest.is_symlink()
    tables = write_report([SweepPaths(latest)])
    assert tables.title == f"cli/{sweep.root.name}" and set(tables.results["sweep"]) == {tables.title}


def test_rebuilding_gives_the_same_files(sweep):
    put(sweep, make_record(ONE))
    write_report([sweep])
    first = {name: (sweep.root / name).read_bytes() for name in FILES}
    write_report([sweep])
    assert {name: (sweep.root / name).read_bytes() for name in FILES} == first


def test_a_moved_sweep(sweep, tmp_path):
    put(sweep, make_record(ONE))
    moved = sweep.root.rename(tmp_path / "elsewhere")
    assert statuses(write_report([SweepPaths(moved)]))[ONE.slug] == "ok"


@pytest.mark.parametrize(
    "text",
    ['{"schema_version": 1, "cell', "", "[]", "null", '{"schema_version": 99}', '{"schema_version": 1}', "\x00\x01"],
)
def test_a_damaged_record_is_named_and_skipped(sweep, text):
    put(sweep, make_record(ONE))
    put(sweep, make_record(TWO)).write_text(text)
    tables = write_report([sweep])
    assert statuses(tables)[ONE.slug] == "ok" and statuses(tables)[TWO.slug] == "skipped"
    assert any(f"cells/{TWO.slug}/record.json is damaged" in note for note in tables.notes)
    assert f"cells/{TWO.slug}/record.json" in " ".join(tables.results["reason"])


def test_bytes_that_are_no_text(sweep):
    put(sweep, make_record(ONE)).write_bytes(b"\xff\xfe\x00")
    assert statuses(write_report([sweep]))[ONE.slug] == "skipped"


def test_a_record_of_another_cell_is_named_and_skipped(sweep):
    record = make_record(TWO)
    path = sweep.cell(ONE.slug).record
    path.parent.mkdir(parents=True)
    write_json(path, record_to_dict(record))
    tables = write_report([sweep])
    assert statuses(tables)[ONE.slug] == "skipped"
    assert any("belongs to another cell" in note for note in tables.notes)


def test_a_foreign_directory_is_named(sweep):
    (sweep.root / "cells" / "from-elsewhere").mkdir(parents=True)
    assert "cells/from-elsewhere is not in the plan and was skipped" in write_report([sweep]).notes


def test_the_environment_stands_under_the_tables(sweep):
    write_json(sweep.environment, {"python": "3.11.7", "versions": {"torch": "2.13.0"}, "git": {"commit": "abc"}})
    write_report([sweep])
    for name in ("results", "compatibility"):
        text = sweep.table(name, "md").read_text()
        assert "torch 2.13.0" in text and "commit abc" in text and "bench -m strategy=single,ddp" in text


@pytest.mark.parametrize("text", ["{", "[1]", ""])
def test_a_damaged_environment_does_not_stop_the_report(sweep, text):
    sweep.environment.write_text(text)
    assert write_report([sweep]).environments[0].lines[-1] == ("Environment", "not recorded")


@pytest.mark.parametrize("text", ["{", "[1]", "", "{}"])
def test_a_damaged_history_of_runs_is_named_and_skipped(sweep, text):
    sweep.runs.write_text(text)
    assert [note for note in write_report([sweep]).notes if note.startswith("runs.json is damaged and was skipped")]


def test_what_is_no_sweep_is_refused(tmp_path, sweep):
    with pytest.raises(SweepDirError):
        write_report([SweepPaths(tmp_path)])
    sweep.plan.write_text("{")
    with pytest.raises(SweepDirError):
        write_report([sweep])


# --- merging -------------------------------------------------------------------------------------------------------


def test_two_parts_of_a_matrix_become_one(tmp_path, monkeypatch):
    first, second = make_sweep(tmp_path), make_sweep(tmp_path)
    assert first.root != second.root
    put(first, make_record(ONE))
    put(second, make_record(TWO))
    merged = SweepPaths(tmp_path / "merged")
    tables = write_report([first, second], merged)
    assert statuses(tables) == {ONE.slug: "ok", TWO.slug: "ok", THREE.slug: "unsupported"}
    assert len(tables.environments) == 2 and any("3 rows" in note for note in tables.notes)
    assert not first.table("results", "csv").exists()
    assert merged.table("results", "csv").exists()


def test_merged_tables_never_overwrite_a_part(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_report([make_sweep(tmp_path / "x"), make_sweep(tmp_path / "x")])
    assert [path.name for path in (tmp_path / "x" / "merged").glob("*/results.csv")] == ["results.csv"]
    assert [path.name for path in tmp_path.iterdir()] == ["x"], "and lie where the sweeps lie, whatever their plans say"


def test_merged_tables_of_a_sweep_that_was_moved_lie_beside_it(tmp_path):
    (tmp_path / "y").mkdir()
    moved = make_sweep(tmp_path / "x").root.rename(tmp_path / "y" / "copy")
    write_report([SweepPaths(moved), make_sweep(tmp_path / "x")])
    assert list((tmp_path / "y" / "merged").glob("*/results.csv"))


def test_the_latest_attempt_wins_and_a_measured_cell_beats_a_planned_one():
    old = make_record(ONE, "failed", "failed.exception", "x", started_at="2026-11-20T00:00:00+00:00")
    new = make_record(ONE, started_at="2026-11-21T00:00:00+00:00")
    ruled = make_record(ONE, "skipped", "skipped.devices", "x", attempt=0, started_at=None)
    for records in ([old, new, ruled, None], [None, ruled, new, old]):
        rows, notes = merge_rows([make_row(ONE, record) for record in records])
        assert [row.record for row in rows] == [new] and notes


@pytest.mark.parametrize(
    ("worse", "better"),
    [
        (None, {"attempt": 0, "started_at": None}),
        ({"attempt": 0, "started_at": "2026-11-22T00:00:00+00:00"}, {"started_at": "2026-11-21T00:00:00+00:00"}),
        ({"started_at": None}, {"started_at": "2026-11-21T00:00:00+00:00"}),
    ],
)
def test_what_was_attempted_later_counts(worse, better):
    one, other = (
        make_row(ONE, None if changes is None else make_record(ONE, **changes)) for changes in (worse, better)
    )
    assert merge_rows([one, other])[0] == merge_rows([other, one])[0] == [other]


def test_of_rows_that_say_as_much_the_last_is_shown():
    first, last = (make_row(ONE, sweep=sweep) for sweep in ("a", "b"))
    rows, notes = merge_rows([first, last, make_row(TWO)])
    assert [row.sweep for row in rows] == ["b", "cli/one"] and notes == [
        "1 rows of cells that stand in several sweeps were left out; the latest attempt is shown"
    ]


def test_the_same_cell_on_another_device_or_torch_keeps_its_row():
    other_torch = replace(CPU, torch="2.12.0")
    rows, notes = merge_rows([make_row(ONE, hardware=hardware) for hardware in (CPU, H200, other_torch)])
    assert len(rows) == 3 and notes == []


def test_a_published_table_is_printed_first_where_a_layout_is_named(sweep, capsys):
    put(sweep, make_record(ONE))
    tables = write_report([sweep], layout="litgpt-train")
    forms = every_form(tables, capsys)
    for name in ("terminal", "results.md", "report.html"):
        text = forms[name]
        assert "20.3" in text and "Lit-GPT" in text and "bench +sweeps=litgpt-train has it" in text
    assert not write_report([sweep]).published


# --- what stands above and below the tables


@pytest.mark.parametrize(
    ("run", "why"),
    [
        ({"stopped_by": "disk"}, "stopped early (the disk is full)"),
        ({"stopped_by": "brake"}, "stopped early (the circuit breaker: cells failed alike)"),
        ({"stopped_by": "moon"}, "stopped early (moon)"),
        ({"interrupted_by": 15}, "interrupted by SIGTERM"),
        ({"interrupted_by": 99}, "interrupted by signal 99"),
        ({"interrupted_by": 15, "stopped_by": "disk"}, "interrupted by SIGTERM"),
    ],
)
def test_the_last_run_says_why_cells_wait(sweep, run, why):
    add_run(sweep, ExitSummary(counts={}, num_attempted=1, stopped_by="brake"), "2026-11-20T03:00:00+00:00")
    add_run(sweep, ExitSummary(counts={}, num_attempted=1, **run), "2026-11-21T03:00:00+00:00")
    (banner,) = write_report([sweep]).banner
    assert banner == (
        f"PARTIAL: 2 of 3 cells have no verdict: the sweep was {why}. To run them: bench resume {sweep.root}"
    )


def test_a_budget_is_the_reason_of_no_cell_that_was_never_reached(sweep):
    put(sweep, make_record(ONE, "skipped", "skipped.budget", "not started", attempt=0))
    add_run(sweep, ExitSummary(counts={}, num_attempted=0), "2026-11-21T03:00:00+00:00")
    assert "2 of 3 cells have no verdict: they were not reached." in write_report([sweep]).banner[0]


def test_notes_are_those_of_the_plan_the_files_and_the_last_run(tmp_path):
    sweep = make_sweep(tmp_path, notes=["of the plan"])
    (sweep.root / "cells" / "b").mkdir(parents=True)
    (sweep.root / "cells" / "a").mkdir()
    put(sweep, make_record(TWO)).write_text("{")
    sweep.environment.write_text("{")
    for note in ("of the first run", "of another", "of the last run"):
        add_run(sweep, ExitSummary(counts={}, num_attempted=0, notes=[note]), "2026-11-21T03:00:00+00:00")
    notes = read_sweep(sweep).notes
    assert notes[:3] == ["of the plan", "cells/a is not in the plan and was skipped",
                         "cells/b is not in the plan and was skipped"]  # fmt: skip
    assert "record.json is damaged" in notes[3] and notes[4].startswith(f"{sweep.environment.name} is damaged: ")
    assert notes[5:] == ["of the last run"]


def test_where_nothing_is_wrong_nothing_is_noted(sweep):
    assert read_sweep(sweep).notes == []
    write_json(sweep.environment, {"git": {"commit": "abc"}})
    assert read_sweep(sweep).notes == []


def test_a_row_says_where_it_was_measured(tmp_path):
    sweep = make_sweep(tmp_path, cards={"debug": {"num_layers": 32, "num_parameters": 7}})
    write_json(sweep.environment, {"git": {"commit": "abc"}})
    put(sweep, make_record(ONE))
    first, second, _ = read_sweep(sweep).rows
    said = (first.sweep, first.hardware, first.device_name, first.torch, first.commit)
    assert said == (f"cli/{sweep.root.name}", "cpu", "Some CPU", "2.13.0+cpu", "abc")
    assert first.card == {"num_layers": 32, "num_parameters": 7} and (first.problem, second.problem) == (None, None)
    put(sweep, make_record(TWO)).write_text("{")
    assert "record.json is damaged" in read_sweep(sweep).rows[1].problem


def test_the_setup_is_command_machine_use_and_environment(tmp_path):
    sweep = make_sweep(tmp_path, arguments=["-m", "a=x y"])
    for use in ({}, {"busy_share": 0.97, "concurrency": 1.5}):
        add_run(sweep, ExitSummary(counts={}, num_attempted=1, **use), "2026-11-20T03:00:00+00:00")
    (block,) = write_report([sweep]).environments
    assert block.title == f"cli/{sweep.root.name}" and block.lines == [
        ("Command", "bench -m 'a=x y'"),
        ("Hardware", "cpu (Some CPU); peaks: unknown"),
        ("Use of the devices", "devices at work 97.0% of the time while cells waited; 1.5 cells at once on average"),
        ("Environment", "not recorded"),
    ]


def test_peaks_say_where_they_are_from(tmp_path):
    sweep = make_sweep(tmp_path, replace(CPU, source="a data sheet"))
    assert write_report([sweep]).environments[0].lines[1] == ("Hardware", "cpu (Some CPU); peaks: a data sheet")


def test_merged_tables_name_each_sweep_and_lead_to_it(tmp_path):
    first, second = make_sweep(tmp_path), make_sweep(tmp_path)
    for cell in (ONE, TWO):
        put(second, make_record(cell))
    tables, target = make_report([first, second])
    titles = [f"cli/{sweep.root.name}" for sweep in (first, second)]
    assert tables.title == " + ".join(titles)
    assert [text.partition(" ")[0] for text in tables.banner] == [f"{titles[0]}:"], "the other one is whole"
    assert tables.roots == {title: f"../../cli/{title[4:]}/" for title in titles}
    assert target.root.parent == tmp_path / "merged" and re.fullmatch(r"\d{8}T\d{6}\.\d{6}Z", target.name)
    alone, place = make_report([second])
    assert (alone.roots, alone.banner, place) == ({titles[1]: ""}, [], second)
    assert tables_of([read_sweep(first), read_sweep(second)]).roots == {
        titles[0]: "", titles[1]: f"../{second.root.name}/",
    }  # fmt: skip


LAYOUT = """
title: T
source: S
machine: M
tables:
  - title: one
    labels: [a]
    columns: [{name: ms, quantity: last_iteration_ms}]
    lines: [[x, {strategy: single, device_type: cpu}, 1.5]]
"""


def test_sweeps_of_one_name_are_held_against_its_layout_and_their_fields_name_what_fills_them(tmp_path, monkeypatch):
    (tmp_path / "layouts").mkdir()
    (tmp_path / "layouts" / "mine.yaml").write_text(LAYOUT)
    monkeypatch.setattr(published, "_folder", lambda: tmp_path / "layouts")
    first, second, other = (read_sweep(make_sweep(tmp_path, sweep_name=name)) for name in ("mine", "mine", "cli"))
    for sweeps in ([first], [first, second]):
        (table,) = tables_of(sweeps).published
        (note,) = table.notes
        assert note.endswith(f"fill it by: bench resume {sweeps[-1].paths.root} --cells {ONE.cell_id}")
    assert tables_of([other]).published == tables_of([first, other]).published == ()
    (table,) = tables_of([other], layout="mine").published
    assert table.title == "one" and len(make_report([other.paths], "mine")[0].published) == 1


def test_expectations_are_of_one_sweep_and_judged_on_its_machine(tmp_path):
    entry = {"name": "n", "less": {"strategy": "single", "device_type": "cpu"}, "more": {"strategy": "ddp"},
             "metric": "step_time_median_s", "because": "b"}  # fmt: skip

    def made(name):
        cells = [make_cell(strategy=one, leaves={"sweep.expect": [entry]}) for one in ("single", "ddp")]
        sweep = make_sweep(tmp_path, cells=[plan_cell(cell) for cell in cells], sweep_name=name)
        for cell in cells:
            put(sweep, make_record(cell))
        return read_sweep(sweep)

    one, same, other = made("a"), made("a"), made("b")
    (judged,) = tables_of([one]).expectations
    assert "is meant" not in judged.explanation
    assert len(tables_of([one, same]).expectations) == 1 and not tables_of([one, other]).expectations
