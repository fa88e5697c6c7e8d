"""Markdown, CSV, HTML and terminal: snapshots, and text that tries to break them."""

import csv
import io
import itertools
import re
from dataclasses import replace

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import snapshot
from benchrunner.core.record import STATUSES
from benchrunner.core.text import single_line
from benchrunner.plan.doctor import Diagnosis
from benchrunner.plan.explain import Explanation
from benchrunner.plan.plan import Plan
from benchrunner.report import csv_file, html, layout, markdown, plan_text, terminal
from benchrunner.report.content import Block, make_tables
from benchrunner.report.expectations import judge_expectations
from benchrunner.report.job_summary import job_summary
from benchrunner.report.junit import to_junit
from benchrunner.report.markdown import LEGEND
from benchrunner.report.published import PublishedTable
from samples import CPU, make_cell, make_every_status, make_record, make_row, plan_cell

BLOCK = Block("cli/one", [("Command", "bench -m strategy=single,ddp"), ("GPU", "none")])
TABLES = make_tables("cli/one", make_every_status(), ["cells/x is not in the plan and was skipped"], [BLOCK])
HOSTILE = "a | b\n`c` <script>alert(1)</script> [x](http://y) \x1b[31m*d* \\| é ‮"


@pytest.fixture(autouse=True)
def piped(monkeypatch):
    for name in ("COLUMNS", "FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


def make_plan(cells):
    return Plan(cells=cells, hardware=CPU, sweep_name="cli", arguments=[], created_at="2026-11-21T03:00:00+00:00")


def test_the_sweep_of_these_files_has_every_status():
    assert set(TABLES.results["status"]) == set(STATUSES)


def test_results_markdown():
    snapshot.check("results.md", markdown.results_markdown(TABLES))


def test_compatibility_markdown():
    snapshot.check("compatibility.md", markdown.compatibility_markdown(TABLES))


def test_results_csv():
    snapshot.check("results.csv", csv_file.to_csv(TABLES.results))


def test_compatibility_csv():
    snapshot.check("compatibility.csv", csv_file.to_csv(TABLES.compatibility))


def test_junit():
    snapshot.check("junit.xml", to_junit(TABLES))


def test_job_summary():
    snapshot.check("job-summary.md", job_summary(TABLES))


def test_report_html():
    """Without style and scripts, which are files of their own, and the details that scripts unpack."""
    text = re.sub(r"(<(style|script)\b[^>]*>).*?(</\2>)", r"\1\3", html.to_html(TABLES), flags=re.DOTALL)
    snapshot.check("report.html", text)


@pytest.mark.parametrize("width", [80, 120, 200])
def test_terminal_tables(width, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(width))
    terminal.print_tables(TABLES)
    printed = capsys.readouterr()
    assert max(map(len, printed.out.splitlines())) <= width
    assert "\x1b" not in printed.out
    assert "note: cells/x is not in the plan" in printed.err.replace("\n", " ")
    snapshot.check(f"terminal-{width}.txt", printed.out)


def test_reasons_are_never_cut(monkeypatch, capsys):
    words = [f"word{number}" for number in range(200)]
    cell = make_cell()
    record = make_record(cell, "failed", "failed.exception", " ".join(words))
    monkeypatch.setenv("COLUMNS", "80")
    terminal.print_tables(make_tables("t", [make_row(cell, record)], [], []))
    assert " ".join(words) in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("width", [80, 160])
def test_print_plan(width, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(width))
    cells = [
        plan_cell(make_cell()),
        plan_cell(make_cell(strategy="ddp"), flags=["memory_tight"]),
        plan_cell(make_cell(precision="nf4"), "unsupported", "rule.nf4_train", "nf4 weights cannot train " * 5),
    ]
    terminal.print_plan(make_plan(cells))
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= width
    snapshot.check(f"plan-{width}.txt", out)


def test_a_narrow_plan_has_labels_then_numbers_then_the_reason(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "60")
    peak = {"peak_memory_bytes": 3 * 2**30, "margin": 0.04, "bound": "estimate", "fit": "fits"}
    cells = [
        plan_cell(make_cell(strategy="ddp", workload="lora", compile="inductor")),
        plan_cell(make_cell(precision="nf4"), "unsupported", "rule.nf4_train", "it cannot train"),
    ]
    terminal.print_plan(make_plan([replace(cell, predicted=peak) for cell in cells]))
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    first, second = (next(n for n, line in enumerate(lines) if line[:1] == [word]) for word in ("run", "unsupported"))
    assert "".join(lines[first]).startswith("run·lora·ddp") and ["3.00", "±", "4%", "fits"] in lines[first:second]
    assert lines[-2][:1] == ["3.00"] and lines[-1] == ["rule.nf4_train:", "it", "cannot", "train"]


def test_a_plan_says_a_reason_once_and_can_show_a_verdict_alone(capsys):
    ruled = [plan_cell(make_cell(leaves={"seed": n}), "unsupported", "rule.x", "it cannot") for n in range(3)]
    terminal.print_plan(make_plan([plan_cell(make_cell()), *ruled]))
    out = capsys.readouterr().out
    assert out.count("rule.x: it cannot") == 1 and out.count("rule.x: as above") == 2
    assert "1 run" in out and "3 unsupported" in out
    terminal.print_plan(make_plan([plan_cell(make_cell()), *ruled]), ("run",))
    assert "rule.x" not in capsys.readouterr().out


def test_a_plan_says_what_its_predictions_leave_out_and_of_how_many_cells(capsys):
    cells = [plan_cell(make_cell(leaves={"seed": seed})) for seed in range(3)]
    noted = [replace(one, predicted={**(one.predicted or {}), "note": "not modelled: thunder"}) for one in cells[:2]]
    terminal.print_plan(make_plan([*noted, cells[2]]))
    assert "Predictions of 2 of 3 cells: not modelled: thunder." in capsys.readouterr().out


def test_a_plan_shows_what_is_left_of_a_model(capsys):
    cell = make_cell(leaves={"model.num_layers": 1})
    plan = replace(make_plan([plan_cell(cell)]), cards={"debug": {"num_layers": 4, "num_parameters": 9_000_000_000}})
    terminal.print_plan(plan)
    out = capsys.readouterr().out
    assert "model debug (1 of 4 layers)" in out and "9 B on its card" in out


def test_print_doctor_shows_what_it_is_given(capsys):
    facts = [("Device", "2 × Abacus (abacus)")]
    axes = {"precision": [("yes", "bf16", ""), ("no", "fp8", "hardware.fp8: no fp8 here")]}
    terminal.print_doctor(Diagnosis(facts, axes, ["a trap"]))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Device: 2 × Abacus (abacus)"
    assert [line.split() for line in lines[3:6]] == [["works", "value"], ["yes", "bf16"], ["no", "fp8"]]
    assert lines[6:] == ["    hardware.fp8: no fp8 here", "", "! a trap"]


def test_a_terminal_gets_colour(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    terminal.print_plan(make_plan([plan_cell(make_cell())]))
    out = capsys.readouterr().out
    assert "\x1b[32mrun" in out
    plain = re.sub(r"\x1b\[[0-9;]*m", "", out)
    monkeypatch.delenv("FORCE_COLOR")
    terminal.print_plan(make_plan([plan_cell(make_cell())]))
    assert capsys.readouterr().out == plain


def hostile_tables():
    cell = make_cell()
    row = make_row(cell, make_record(cell, "failed", "failed.exception", HOSTILE, flags=[HOSTILE]))
    return make_tables(HOSTILE, [row], [HOSTILE], [Block(HOSTILE, [("Command", HOSTILE)])])


@pytest.mark.parametrize("write", [markdown.results_markdown, markdown.compatibility_markdown])
def test_hostile_text_cannot_break_markdown(write):
    text = write(hostile_tables())
    assert "<script" not in text and "\x1b" not in text and not re.search(r"(?<!\\)\]\(", text)
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        widths = {len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in block.splitlines()}
        assert len(widths) == 1


@given(st.text(max_size=60))
def test_any_text_stays_in_its_markdown_field(text):
    table = markdown.to_markdown(pd.DataFrame({"a": [text], "b": ["x"]}))
    lines = table.splitlines()
    assert len(lines) == 3
    assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", lines[2])) == 3
    assert "<" not in table


@given(st.text(max_size=60))
def test_any_text_stays_in_its_csv_field(text):
    rows = list(csv.reader(io.StringIO(csv_file.to_csv(pd.DataFrame({"a": [text], "b": ["x"]})))))
    assert rows in [[["a", "b"], [mark + single_line(text), "x"]] for mark in ("", "'")] or not single_line(text)


def test_ten_thousand_cells_can_be_laid_out():
    cells = [plan_cell(make_cell(leaves={"seq_len": number})) for number in range(1, 10_001)]
    frame = plan_text.plan_table(make_plan(cells))
    assert len(layout.with_reasons(frame, 200)) == 10_001


def test_sections_keep_the_indentation_of_a_traceback(capsys):
    terminal.print_sections([("End", ["  File x", "\x1b[31mraise\n"])])
    assert capsys.readouterr().out == "End\n───\n  File x\nraise\n\n"


def test_a_narrow_terminal_goes_without_columns_and_says_which():
    frame = pd.DataFrame({"strategy": ["fsdp_stage3"], "step ms": ["12.35"], "p90 ms": ["13.00"], "flags": ["none"]})
    assert layout.narrowed(frame, 80)[1] == [] and list(layout.narrowed(frame, 80)[0]) == list(frame)
    assert layout.narrowed(frame, 26)[1] == ["flags"]
    assert layout.narrowed(frame, 20)[1] == ["flags", "p90 ms"]
    said = layout.narrowed(frame.assign(flags=["unstable"]), 26)[1]
    assert "flags" not in said


def test_numbers_stand_aligned_below_labels_that_fill_a_narrow_terminal():
    frame = pd.DataFrame({
        "strategy": ["fsdp_stage3", "ddp"], "checkpointing": ["full", "none"], "world": ["2", "2"],
        "step ms": ["12.35", "1,817"], "tokens/s/device": ["2,467", "9"],
    })  # fmt: skip
    assert layout.numbers_by_label(frame, 3, 36) == [
        "    step ms  tokens/s/device",
        "fsdp_stage3 · checkpointing full ·",
        "world 2",
        "    12.35    2,467",
        "ddp · checkpointing none · world 2",
        "    1,817    9",
    ]
    assert layout.numbers_by_label(frame, 3, 80) == layout.aligned(frame, 80)
    assert layout.numbers_by_label(frame, 3, 9) == layout.aligned(frame, 9), "nothing fits: a list"


def test_cells_that_failed_alike_are_named_once_with_their_reason():
    cells = [make_cell(strategy=name) for name in ("single", "ddp", "fsdp_stage3")]
    rows = [make_row(cell, make_record(cell, "failed", "failed.exit", "rank 0 exited")) for cell in cells]
    lines = layout.unmeasured_lines(make_tables("t", rows, [], []).results, 200)
    assert lines[0] == "failed  failed.exit, 3 cells" and lines[2].strip() == "rank 0 exited" and len(lines) == 3
    assert all(f"{cell.axes['strategy']} · world" in lines[1] and cell.cell_id[:6] in lines[1] for cell in cells)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(max_size=60))
def test_no_text_of_a_reason_a_flag_or_a_setting_breaks_the_terminal(text, capsys):
    """No escape sequence, no line that is wider than the terminal because of it, no line that looks like another."""
    cell = make_cell(leaves={"attention": text})
    row = make_row(cell, make_record(cell, "failed", "failed.exception", text, flags=[text], command=text))
    capsys.readouterr()
    terminal.print_tables(make_tables("t", [row, *make_every_status()], [text], [Block(text, [("Command", text)])]))
    out = capsys.readouterr().out
    assert "\x1b" not in out and not any(ord(one) < 32 for one in out.replace("\n", ""))
    assert out.count("Not measured") == 1 + single_line(text).count("Not measured")


# --- explanations and other answers


TERMS = Explanation(
    phase="backward",
    memory_bytes={"parameters": 2**30, "activations": 2**31},
    outside_bytes=2**29,
    step_s={"matmul": 0.0004994, "host": 0.0005},
    ideal_s={"matmul": 0.001, "host": 0.0005},
    efficiencies={"matmul": 0.5, "host": 0.5},
    remarks=("of another cell",),
)
PREDICTED = {
    "method": "analytic", "bound": "estimate", "peak_memory_bytes": 3 * 2**30, "margin": 0.04,
    "fit": "fits_with_retries", "capacity_bytes": 2**33, "note": "a limit",
}  # fmt: skip


def explained(capsys, found=TERMS, **changes):
    said = {name: value for name, value in {**PREDICTED, **changes}.items() if name != "note" or value}
    one = replace(plan_cell(make_cell()), predicted=said)
    terminal.print_explanation(one, found)
    return capsys.readouterr().out.splitlines()


def test_an_explanation_has_the_terms_of_memory_and_time(capsys):
    assert explained(capsys) == [
        make_cell().slug, "of another cell", "",
        "Peak memory, reached in backward", "────────────────────────────────",
        "term                  GiB", "parameters            1.00", "activations           2.00",
        "sum                   3.00", "beside the allocator  0.500", "",
        "Step time", "─────────",
        "resource  ms at data-sheet rate  share of it reached  ms",
        "matmul    1.00                   0.500                0.499",
        "host      0.500                  0.500                0.500",
        "sum                                                   0.999", "",
        "predicted by analytic: 3.00 ± 4% GiB of 8.00 GiB: fits with retries", "a limit",
    ]  # fmt: skip


def test_what_an_explanation_has_nothing_to_say_of_is_left_out(capsys):
    found = replace(
        TERMS, phase="", outside_bytes=0, step_s={}, parts={"prefill_mlp_s": 0.0009994, "largest_batch": 7.0}
    )
    lines = explained(capsys, found, fit=None, note="", capacity_bytes=None)
    assert lines[3:] == [
        "Peak memory", "───────────", "term         GiB", "parameters   1.00", "activations  2.00",
        "sum          3.00", "",
        "What the formula computes", "─────────────────────────", "term            value", "prefill mlp ms  0.999",
        "largest batch   7.00", "", "predicted by analytic: 3.00 ± 4% GiB of – GiB: unknown",
    ]  # fmt: skip


def test_a_replay_of_the_allocator_says_what_it_takes(capsys):
    lines = explained(capsys, least_memory_bytes=2**31, reserved_memory_bytes=2**32)
    assert "4% GiB of 8.00 GiB; the allocator takes 4.00 GiB for it, 2.00 at least: fits with retries" in lines[-2]


def test_the_head_of_a_plan_counts_cells_and_devices(capsys):
    terminal.print_plan(make_plan([plan_cell(make_cell())]))
    assert capsys.readouterr().out.startswith("1 cell planned for 1 × Some CPU (cpu): 1 run, at most about ")
    terminal.print_plan(make_plan([plan_cell(make_cell(leaves={"seed": n})) for n in range(1000)]))
    assert capsys.readouterr().out.startswith("1,000 cells planned for")


def test_a_warning_of_the_doctor_is_wrapped_below_its_mark(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "40")
    terminal.print_doctor(Diagnosis([("Device", "x")], {}, ["word " * 10]))
    assert capsys.readouterr().out.splitlines() == [
        "Device: x", "! word word word word word word word", "  word word word",
    ]  # fmt: skip


def test_every_part_of_a_sweep_is_printed_under_its_title(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "100")
    frame = pd.DataFrame([["eager", "0.740", "1.48", "0.50"]], columns=["compiler", "time s", "published", "ratio"])
    published = PublishedTable(title="Table 1", above="as published", frame=frame, num_labels=1, notes=["n: why"])
    tables = replace(TABLES, published=[published, published], banner=["PARTIAL: 1"])
    terminal.print_tables(tables)
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert lines[:2] == ["cli/one", "PARTIAL: 1"] and lines.count("as published") == 1, "said once"
    assert lines[lines.index("as published") + 1] == "" and LEGEND[:40] in out
    at = lines.index("Table 1")
    assert lines[at : at + 7] == [
        "Table 1", "───────", "compiler  time s  published  ratio", "eager     0.740   1.48       0.50", "", "- n: why",
        "",
    ]  # fmt: skip
    titles = titles_of(out)
    assert titles[:2] == ["Table 1", "Table 1"]
    assert titles[-3:] == ["Measured", "Not measured", "Fastest and smallest"]


def every_section():
    """A sweep with a search, a cell that is its prediction alone, one that is ok, and an ordering of two of them."""
    entry = {"name": "n", "less": {"strategy": "single"}, "more": {"strategy": "ddp"}, "because": "b"}
    expect = {"sweep.expect": [entry | {"metric": "step_time_median_s"}]}
    search = make_cell(strategy="fsdp_stage3", leaves={**expect, "micro_batch_size": "max"})
    ok, alone = make_cell(leaves=expect), make_cell(strategy="ddp", leaves=expect)
    predicted = {"method": "analytic", "peak_memory_bytes": 2**30, "step_time_s": 0.5}
    rows = [
        make_row(ok, make_record(ok)),
        make_row(alone, verdict="skipped", code="skipped.predict_only", reason="r"),
        make_row(search, make_record(search, reason="max = 12 (probes: 12 ok)", metrics={}, attempt=0)),
    ]
    rows[1] = replace(rows[1], planned=replace(rows[1].planned, predicted=predicted))
    return make_tables("t", rows, [], [], expectations=judge_expectations(rows, CPU))


SECTIONS = ["Expected", "Found by search", "Measured", "Predicted"]


def titles_of(text):
    return [line for line, below in itertools.pairwise(text.splitlines()) if below and set(below) == {"─"}]


@pytest.mark.parametrize("width", [60, 160])
def test_a_section_for_all_that_a_sweep_may_have(monkeypatch, capsys, width):
    monkeypatch.setenv("COLUMNS", str(width))
    terminal.print_tables(every_section())
    out = capsys.readouterr().out
    assert [title for title in titles_of(out) if title in SECTIONS] == SECTIONS
    assert max(map(len, out.partition("─")[2].splitlines())) <= width
    shown = {title: out.partition(f"{title}\n─")[2].partition("\n\n")[0] for title in SECTIONS}
    assert "max = 12 (probes: 12 ok)" in " ".join(shown["Found by search"].split()) and "n" in shown["Expected"]
    assert "1.00" in shown["Predicted"] and "500" in shown["Predicted"] and "ddp" in shown["Predicted"]
    assert "single" in shown["Measured"]


def test_on_a_narrow_terminal_numbers_stand_below_the_labels_of_their_cell(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "40")
    terminal.print_tables(TABLES)
    lines = capsys.readouterr().out.partition("Measured\n")[2].partition("\n\n")[0].splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("single · "))
    assert lines[1].split()[0] == "tokens" and all(line.startswith("    ") for line in lines[1:at])
    assert lines[at + 1].startswith("    10,370")


def test_a_section_without_rows_has_no_title(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "160")
    failed = make_row(make_cell(), make_record(make_cell(), "failed", "failed.exit", "r"))
    terminal.print_tables(replace(make_tables("t", [failed], [], []), matrices=[]))
    out = capsys.readouterr().out
    assert titles_of(out) == ["Not measured"] and LEGEND[:40] not in out


def test_a_narrow_plan_says_which_columns_it_goes_without(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "50")
    predicted = {
        "method": "dry_run",
        "peak_memory_bytes": 2**30,
        "fit": "fits",
        "limited_by": "host",
        "step_time_s": 0.5,
    }
    terminal.print_plan(make_plan([replace(plan_cell(make_cell(compile=name)), predicted=predicted)
                                   for name in ("eager", "inductor")]))  # fmt: skip
    out = " ".join(capsys.readouterr().out.split())
    assert "Left out at 50 columns: limited by." in out


def test_a_long_line_is_left_to_the_terminal_to_wrap(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "40")
    terminal.print_sections([("t", ["a 1 " * 40])])
    assert capsys.readouterr().out.splitlines()[2] == ("a 1 " * 40).rstrip()


def test_a_terminal_is_never_taken_for_less_than_forty_columns(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "10")
    terminal.print_doctor(Diagnosis([("Device", "word " * 10)], {}))
    assert capsys.readouterr().out.splitlines()[0] == "Device: word word word word word word"


def test_colours_follow_the_first_word_alone(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    terminal.print_sections([("t", ["failed now", "now failed", "[bold]x"])])
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].startswith("\x1b[31mfailed now") and lines[3:5] == ["now failed", "[bold]x"]
