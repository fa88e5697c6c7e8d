"""The page: what stands on it without a script, and that no text of a reason, a model or a log changes its markup."""

import base64
import json
import re
import zlib
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchrunner.report import charts, html, page
from benchrunner.report.cell_details import details_of
from benchrunner.report.charts import Point
from benchrunner.report.content import Block, make_tables
from benchrunner.report.expectations import judge_expectations
from samples import CPU, make_cell, make_record, make_row, make_rows

BLOCK = Block("cli/one", [("Command", "bench -m strategy=single,ddp"), ("GPU", "none")])
TABLES = make_tables("cli/one", make_rows(), ["cells/x is not in the plan and was skipped"], [BLOCK])
HOSTILE = "a | b\n`c` </script><script>alert(1)</script></noscript> [x](http://y) \x1b[31m*d* \\| é ‮ \ud800"


class Tags(HTMLParser):
    """The elements of a page, its links, and its text outside of scripts."""

    def __init__(self, text):
        super().__init__()
        self.names, self.links, self.text, self.scripts, self._inside = [], [], "", [], None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.names.append(tag)
        self._inside = tag
        assert not {name for name, _ in attrs} & {"onerror", "onclick", "src", "onload"}
        self.links += [value for name, value in attrs if name == "href"]

    def handle_data(self, data):
        if self._inside == "script":
            self.scripts.append(data)
        elif self._inside != "style":
            self.text += data

    def handle_endtag(self, tag):
        self._inside = None if tag in ("script", "style") else self._inside


def details_in(text):
    """What the script unpacks."""
    packed = re.search(r'id="details">([^<]*)<', text)[1]
    return json.loads(zlib.decompress(base64.b64decode(packed)))


def test_it_holds_everything_and_loads_nothing():
    found = Tags(html.to_html(TABLES))
    assert "rank 1 ran out of memory" in found.text and "bench -m strategy=single,ddp" in found.text
    assert "✗ refused 1/1" in found.text and "<b>never</b>" in found.text
    assert not {"link", "img", "iframe", "b"} & (set(found.names) - {"b"})
    assert len(found.scripts) == 2
    assert all(re.fullmatch(r"cells/[a-z0-9._-]+/record.json", link) for link in found.links) and found.links
    assert "http" not in "".join(found.scripts).replace("http://www.w3.org/2000/svg", "")


def test_the_first_screen():
    text = " ".join(Tags(html.to_html(TABLES)).text.split())
    assert "partial" in text and "7 cells: 2 ok" in text
    assert "2 of 7 cells: " in text and "(rule.nf4_train)." in text.partition("What cannot be: ")[2]
    assert "single · bf16 · eager · world 1, 10,370 tokens/s/device in 0.68 GiB" in text


def test_a_cell_opens_with_all_that_is_known_of_it():
    cell = make_cell()
    checks = {"shape": {"ok": True, "expected": 5, "observed": 5, "note": "n"}, "trains": {"ok": None}}
    ranks = [{"rank": 0, "state": "done", "phase": "teardown", "phases_s": {}, "step_times_s": [0.1, 0.2]}]
    changes = {"checks": checks, "ranks": ranks, "phases_s": {"build": 1.234}, "attempt": 2}
    row = make_row(cell, make_record(cell, **changes))
    predicted = {"bound": "estimate", "peak_memory_bytes": 2**31, "step_time_s": 0.005}
    row = replace(row, planned=replace(row.planned, predicted=predicted))
    (found,) = details_in(html.to_html(make_tables("t", [row], [], [])))
    assert found["checks"] == [["shape", True, "5", "5", "n"], ["trains", None, "", "", ""]]
    assert found["samples_ms"] == [100.0, 200.0] and found["phases"] == {"build": 1.23}
    assert (found["folder"], found["slug"], found["attempt"]) == ("cells/", cell.slug, 2), "the script's links"
    assert (found["predicted_gib"], found["predicted_ms"], "at_least" in found) == (2.0, 5.0, False)
    assert found["started"] == "2026-11-21T03:00:00+00:00" and found["wall_s"] == 12.5
    assert found["command"].startswith("bench model=debug")


def test_a_page_holds_nothing_that_its_script_does_not_read():
    cell = make_cell()
    ranks = [{"rank": 0, "state": "done", "phase": "teardown", "phases_s": {}, "step_times_s": [0.1]}]
    known = make_record(
        cell, "invalid", "validity.shape", "w", flags=["f"], evidence={"file": "f", "lines": ["  raise"]}, ranks=ranks,
        checks={"a": {"ok": True}}, phases_s={"build": 1.0},
        earlier_attempts=[{"attempt": 1, "status": "failed", "reason_code": "c", "reason": "r"}],
    )  # fmt: skip
    predicted = {"bound": "lower", "peak_memory_bytes": 2**31, "step_time_s": 0.005}
    row = make_row(cell, known)
    row = replace(row, planned=replace(row.planned, predicted=predicted))
    valid = replace(row, record=replace(known, status="ok", reason_code=None, reason=None))
    details = details_of(row, "", True, ["e"]) | details_of(valid, "", True)
    script = (html.HERE / "report.js").read_text()
    assert details["evidence"] == ["f", "  raise"]
    assert {"reason", "samples_ms", "measured_gib", "at_least", "earlier"} < set(details)
    assert [name for name in details if f"cell.{name}" not in script] == []


def test_the_peak_of_a_whole_process_is_not_held_against_a_prediction():
    cell = make_cell()
    row = make_row(cell, make_record(cell))
    whole = replace(row.record, metrics={**row.record.metrics, "memory_scope": "process"})
    found = [details_of(one, "", True).get("measured_gib") for one in (row, replace(row, record=whole))]
    assert found == [0.68, None]


def test_links_lead_from_a_merged_report_to_the_sweeps():
    cell = make_cell()
    row = make_row(cell, make_record(cell))
    tables = make_tables("t", [row], [], [], roots={row.sweep: "../../cli/one/"})
    text = html.to_html(tables)
    assert details_in(text)[0]["folder"] == "../../cli/one/cells/"
    assert f'href="../../cli/one/cells/{cell.slug}/record.json"' in text


def hostile_page(text):
    cell = make_cell(leaves={"compile.mode": text})
    evidence = {"file": "rank0.err", "lines": [text]}
    record = make_record(cell, "failed", "failed.exception", text, flags=[text], evidence=evidence, command=text)
    rows = [make_row(cell, record, hardware=replace(CPU, device_name=text)), *make_rows()]
    return html.to_html(make_tables(text, rows, [text], [Block(text, [("Command", text)])]))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.one_of(st.text(max_size=40), st.sampled_from([HOSTILE, "-->", "<!--", "</style>", "{{ 7*7 }}", "&lt;", "'\""]))
)
def test_no_text_changes_the_markup(text):
    found, expected = Tags(hostile_page(text)), Tags(hostile_page("plain"))
    assert found.names == expected.names and len(found.scripts) == 2
    assert found.scripts[1] == expected.scripts[1]


def test_a_large_sweep_is_small_and_lays_out_its_first_rows_alone(monkeypatch):
    monkeypatch.setattr(page, "MOST_CELLS_IN_FULL", 10)
    rows = [make_row(cell, make_record(cell)) for cell in (make_cell(leaves={"seed": seed}) for seed in range(300))]
    text = html.to_html(make_tables("t", rows, [], []))
    assert text.index("<noscript") > 0 and text.count("<tr><td") == 300
    assert text[: text.index("<noscript")].count("<tr><td") == html.FIRST_ROWS
    lines = [line for line in text[text.index("<noscript") :].splitlines() if line.startswith("<tr><td")]
    assert len(lines) == 250, "the script reads a row a line"
    assert len(details_in(text)) == 300


@pytest.mark.parametrize(("length", "is_wrapped"), [(60, False), (61, True)])
def test_numbers_stand_on_the_right_and_long_reasons_are_wrapped(length, is_wrapped):
    ok, failed = make_cell(), make_cell(strategy="ddp")
    record = make_record(failed, "failed", "failed.exit", "x" * (length - len("failed.exit: ")))
    tables = make_tables("t", [make_row(ok, make_record(ok)), make_row(failed, record)], [], [])
    table, text = page.cell_table(tables), html.to_html(tables)
    places = [table.headings.index(name) + 1 for name in ("world", *table.measures)]
    assert re.findall(r"#cells :is\(td,th\):nth-child\((\d+)\) \{ text-align: right", text) == [str(n) for n in places]
    wrapped = re.findall(r"#cells td:nth-child\((\d+)\) \{ min-width", text)
    assert wrapped == ([str(len(table.headings))] if is_wrapped else [])


def test_a_sweep_is_partial_while_a_cell_waits_or_a_banner_says_so():
    cell = make_cell()
    done, waiting = make_row(cell, make_record(cell)), make_row(make_cell(strategy="ddp"))
    states = [html.to_html(make_tables("t", rows, [], [], banner)) for rows, banner in (
        ([done], []), ([done, waiting], []), ([done], ["PARTIAL"]))]  # fmt: skip
    assert [re.search(r'class="state (\w+)"', text)[1] for text in states] == ["complete", "partial", "partial"]
    assert ">PARTIAL<" in states[2]


def test_a_cell_that_is_opened_says_what_is_expected_of_it():
    entry = {"name": "n", "less": {"strategy": "single"}, "more": {"strategy": "ddp"}, "because": "b"}
    expect = {"sweep.expect": [entry | {"metric": "step_time_median_s"}]}
    cells = [make_cell(strategy=name, leaves=expect) for name in ("single", "ddp")]
    rows = [make_row(cell, make_record(cell)) for cell in cells]
    found = details_in(html.to_html(make_tables("t", rows, [], [], expectations=judge_expectations(rows, CPU))))
    assert all(len(one["expected"]) == 1 for one in found)
    assert "expected" not in details_in(html.to_html(make_tables("t", rows, [], [])))[0]


def test_all_rows_of_a_sweep_that_is_not_large_are_laid_out(monkeypatch):
    monkeypatch.setattr(html, "FIRST_ROWS", 1)
    cells = [make_cell(leaves={"seed": seed}) for seed in range(3)]
    tables = make_tables("t", [make_row(cell, make_record(cell)) for cell in cells], [], [])
    assert "<noscript" not in html.to_html(tables)
    monkeypatch.setattr(page, "MOST_CELLS_IN_FULL", 2)
    assert "<noscript" in html.to_html(tables)


# --- pictures ------------------------------------------------------------------------------------------------------


def points(*places):
    return [Point(x=x, y=y, series="s", title="<t>", row=0) for x, y in places]


def test_the_front_is_what_nothing_beats():
    front = charts.pareto(points((1, 1), (2, 3), (3, 2), (4, 4), (1, 0.5)))
    assert [(point.x, point.y) for point in front] == [(1, 1), (2, 3), (4, 4)]


@pytest.mark.parametrize("values", [[(0, 0)], [(1e-9, 1e12), (5, 3)], [(7, 7)] * 3])
def test_any_numbers_can_be_drawn(values):
    for draw in (charts.scatter, charts.curves):
        text = draw(points(*values), "a & b", "<c>")
        assert "nan" not in text and "<t>" not in text and "&lt;c&gt;" in text


def test_many_points_are_few_elements(monkeypatch):
    monkeypatch.setattr(charts, "MOST_MARKS", 5)
    text = charts.scatter(points(*((x, x) for x in range(1, 50))), "x", "y")
    assert "<circle" not in text and text.count('class="dots') == 1


def test_a_batch_axis_has_curves_with_retries_hollow():
    def row(size, retries):
        cell = make_cell(leaves={"micro_batch_size": size})
        metrics = {"tokens_per_second_per_device": 10.0 * size, "num_alloc_retries": retries}
        return make_row(cell, make_record(cell, metrics=metrics))

    def other(size):
        cell = make_cell(strategy="ddp", leaves={"micro_batch_size": size})
        return make_row(cell, make_record(cell))

    text = html.to_html(make_tables("t", [row(1, 0), row(2, 0), row(4, 3), other(8)], [], []))
    assert text.count('class="mark s0 hollow"') == 1 and "micro-batch 4, 3 allocator retries" in text
    assert text.count('class="curve') == 1 and "ddp, micro-batch 8" not in text, "one size makes no curve"
    assert 'id="batches"' not in html.to_html(make_tables("t", [row(1, 0), other(8)], [], []))
    assert 'id="batches"' not in html.to_html(TABLES)


def test_the_ratio_is_to_the_first_cell_of_the_same_model_that_is_ok():
    cells = [make_cell(strategy=name) for name in ("single", "ddp")] + [make_cell(model="gpt2-125m")]
    speeds = (100.0, 150.0, 7.0)
    rows = [
        make_row(cell, make_record(cell, metrics={"tokens_per_second_per_device": speed}))
        for cell, speed in zip(cells, speeds, strict=True)
    ]
    table = page.cell_table(make_tables("t", rows, [], []))
    at = table.headings.index(page.RATIO)
    assert [row[at] for row in table.rows] == ["1.00", "1.50", "1.00"]
