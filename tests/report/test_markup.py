"""Any text at all, in any place of the report's page."""

import csv
from html.parser import HTMLParser

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchrunner.report import csv_file, html, markdown
from benchrunner.report.content import Block, make_tables
from samples import make_cell, make_record, make_row

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
