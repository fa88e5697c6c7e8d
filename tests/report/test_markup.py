"""Any text at all, in any place of the report's page."""

import csv
from dataclasses import replace
from html.parser import HTMLParser

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchrunner.report import csv_file, html, markdown
from benchrunner.report.content import Block, make_tables
from benchrunner.report.expectations import judge_expectations
from benchrunner.report.published import PublishedTable
from samples import CPU, make_cell, make_record, make_row

UNSEEN = ["\u202e", "\u2066", "\u061c", "\u200f", "\u200b", "\ufeff", "\U000e0041", "\x9b"]
TAGS = ["<script>", "</td></table>", "<img src=x onerror=y>", "&lt;", "<!--", "]]>"]
PIECES = st.sampled_from([*TAGS, "`", "|", "\n", "\\", "{{x}}", "{%", "'", '"', "\x1b[31m", *UNSEEN])
TEXTS = st.lists(PIECES | st.text(max_size=8), max_size=8).map("".join)
CELL = make_cell()


class Skeleton(HTMLParser):
    """The tags of a page, in order, with their attributes."""

    def __init__(self, page):
        super().__init__()
        self.tags = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, sorted(name for name, _ in attrs)))

    def handle_endtag(self, tag):
        self.tags.append(("/", tag))


def page_of(text):
    record = make_record(CELL, "failed", "failed.exception", f"rank 0 said {text}")
    row = make_row(CELL, record)
    return html.to_html(make_tables("t", [row], [f"note {text}"], [Block("b", [("Command", f"bench {text}")])]))


PLAIN = Skeleton(page_of("word")).tags


@settings(max_examples=40, deadline=None)
@given(TEXTS)
def test_no_text_changes_the_skeleton_of_the_page(text):
    page = page_of(text)
    assert Skeleton(page).tags == PLAIN and not any(one in page for one in UNSEEN)


@settings(deadline=None)
@given(TEXTS)
def test_no_text_leaves_its_line(text):
    escaped = markdown.escape_markdown(text)
    assert len(escaped.splitlines()) <= 1 and "<" not in escaped and "\x1b" not in escaped
    assert not any(one in escaped for one in UNSEEN)


def test_numbers_stand_on_the_right_and_words_on_the_left():
    frame = pd.DataFrame({"name": ["ddp"], "tokens": ["10,368"], "error": ["4.6e-05"], "none": ["–"], "code": ["e-5"]})
    rule = markdown.to_markdown(frame).splitlines()[1]
    assert [column.strip().endswith(":") for column in rule.strip("|").split("|")] == [False, True, True, True, False]


@pytest.mark.parametrize(
    "text", ["=1+1", "+x", "-x", "@x", "\t=x", "\r=x", "\n =x", "\uff1dx", '=HYPERLINK("x")', "--"]
)
def test_no_field_is_a_formula(text):
    frame = pd.DataFrame({"reason": [text, "a=b"], "step": [-0.5, 1.0], "mixed": [-3, "x"]})
    first, second = csv.DictReader(csv_file.to_csv(frame).splitlines())
    assert first["reason"].startswith("'") and second["reason"] == "a=b"
    assert (first["step"], first["mixed"]) == ("-0.5", "-3")


@pytest.mark.parametrize("text", ["-1", "-1.5e-3", "-inf", "+2"])
def test_a_number_that_is_text_stays_one(text):
    assert csv_file.to_csv(pd.DataFrame({"x": [text]})) == f"x\n{text}\n"


# --- Markdown and CSV, letter by letter


def test_a_markdown_table_is_as_wide_as_its_longest_fields():
    frame = pd.DataFrame({"name": ["ddp", "a|b"], "n": ["1", "10,368"], "": ["", "x"]})
    assert markdown.to_markdown(frame, bold=[(1, "n")]).splitlines() == [
        "| name |          n | –   |",
        "| ---- | ---------: | --- |",
        "| ddp  |          1 | –   |",
        "| a\\|b | **10,368** | x   |",
    ]
    matrix = pd.DataFrame({"fp32": ["1", "2"]}, index=["ddp", "x"])
    assert markdown.to_markdown(matrix, index="strategy").splitlines() == [
        "| strategy | fp32 |", "| -------- | ---- |", "| ddp      | 1    |", "| x        | 2    |",
    ]  # fmt: skip


def test_the_fastest_of_a_group_stands_first_and_is_bold():
    """Of debug and train three cells, one without a speed; of lora one, which is compared with nothing."""
    cells = [make_cell(compile=name) for name in ("eager", "inductor", "thunder")] + [make_cell(workload="lora")]
    metrics = [{"step_time_median_s": 0.1, "tokens_per_second_per_device": speed} for speed in (0.5, None, 7.0, 9.0)]
    rows = [make_row(cell, make_record(cell, metrics=one)) for cell, one in zip(cells, metrics, strict=True)]
    results = make_tables("t", [rows[0], rows[3], *rows[1:3]], [], []).results
    ordered = markdown.by_group(results)
    assert ordered["compile"].tolist() == ["thunder", "eager", "inductor", "eager"]
    assert ordered["workload"].tolist() == ["train", "train", "train", "lora"] and list(ordered) == list(results)
    assert markdown.best_of_groups(ordered) == [(0, "tokens/s/device")]


def results_page(**changes):
    cell, failed = CELL, make_cell(strategy="ddp")
    rows = [make_row(cell, make_record(cell)), make_row(failed, make_record(failed, "failed", "failed.exit", "r"))]
    made = make_tables("a*b", rows, ["n*1", "n2"], [Block("b", [("Command", "x*y")])], ["PARTIAL"])
    return replace(made, **changes)


def test_the_sections_of_results_in_order():
    frame = pd.DataFrame([["eager", "0.74"]], columns=["compiler", "s"])
    table = PublishedTable(title="T*", above="as it was", frame=frame, num_labels=1, notes=["a", "b*"])
    text = markdown.results_markdown(results_page(published=[table, table]))
    parts = text.split("\n\n")
    assert parts[:2] == ["# Results: a\\*b", "**PARTIAL**"] and parts.count("as it was") == 1
    titles = [part for part in parts if part.startswith("#")]
    assert titles == ["# Results: a\\*b", "## T\\*", "## T\\*", "## Measured", "## Not measured", "## Notes",
                      "## Setup: b"]  # fmt: skip
    at = parts.index("## T\\*")
    assert parts[at + 1].splitlines()[2] == "| eager    | 0.74 |" and parts[at + 2] == "- a\n- b\\*"
    assert parts[-3].startswith("- n\\*1\n- n2\n") and parts[-1] == "- Command: x\\*y\n"


def test_a_section_for_all_that_a_sweep_may_have_and_none_for_what_it_has_not():
    entry = {"name": "n", "less": {"strategy": "single"}, "more": {"strategy": "ddp"}, "because": "b"}
    expect = {"sweep.expect": [entry | {"metric": "step_time_median_s"}]}
    ok, alone = make_cell(leaves=expect), make_cell(strategy="ddp", leaves=expect)
    search = make_cell(strategy="fsdp_stage3", leaves={**expect, "micro_batch_size": "max"})
    rows = [
        make_row(ok, make_record(ok)),
        make_row(alone, verdict="skipped", code="skipped.predict_only", reason="r"),
        make_row(search, make_record(search, reason="max = 12 (probes: 12 ok)", metrics={})),
    ]
    text = markdown.results_markdown(make_tables("t", rows, [], [], expectations=judge_expectations(rows, CPU)))
    titles = [line for line in text.splitlines() if line.startswith("## ")]
    assert titles[:4] == ["## Expected", "## Found by search", "## Measured", "## Predicted"]
    assert "max = 12 (probes: 12 ok)" in text
    failed = make_tables("t", [make_row(ok, make_record(ok, "failed", "failed.exit", "r"))], [], [])
    frame = pd.DataFrame([["eager", "0.74"]], columns=["compiler", "s"])
    table = PublishedTable(title="T", above="a", frame=frame, num_labels=1, notes=[])
    text = markdown.results_markdown(replace(failed, published=[table]))
    assert [line for line in text.splitlines() if line.startswith("#")] == ["# Results: t", "## T", "## Not measured"]
    assert "\n\n\n" not in text


def test_the_sections_of_compatibility_in_order():
    text = markdown.compatibility_markdown(results_page())
    titles = [line for line in text.splitlines() if line.startswith("#")]
    assert titles[0] == "# Compatibility: a\\*b" and titles[-3:] == ["## Reasons", "## Notes", "## Setup: b"]
    assert markdown.LEGEND in text and "**PARTIAL**" in text and "2 cells: " in text and len(titles) > 4


def test_unknown_numbers_are_na_and_others_have_six_digits():
    frame = pd.DataFrame({"x": [0.123456789, None], "n": pd.array([1, None], dtype="Int64"), "t": ["a\nb", "c"]})
    assert csv_file.to_csv(frame) == "x,n,t\n0.123457,1,a b\nNA,NA,c\n"
    assert frame["t"][0] == "a\nb", "what is written is no part of what it was made from"
