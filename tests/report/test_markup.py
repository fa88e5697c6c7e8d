"""Any text at all, in any place of the report's page."""

from html.parser import HTMLParser

import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from benchrunner.report import html, markdown
from benchrunner.report.content import Block, make_tables
from samples import make_cell, make_record, make_row

TAGS = ["<script>", "</td></table>", "<img src=x onerror=y>", "&lt;", "<!--", "]]>"]
PIECES = st.sampled_from([*TAGS, "`", "|", "\n", "\\", "{{x}}", "{%", "'", '"', "\x1b[31m"])
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
    assert Skeleton(page_of(text)).tags == PLAIN


@settings(deadline=None)
@given(TEXTS)
def test_no_text_leaves_its_line(text):
    escaped = markdown.escape_markdown(text)
    assert len(escaped.splitlines()) <= 1 and "<" not in escaped and "\x1b" not in escaped


def test_numbers_stand_on_the_right_and_words_on_the_left():
    frame = pd.DataFrame({"name": ["ddp"], "tokens": ["10,368"], "error": ["4.6e-05"], "none": ["–"], "code": ["e-5"]})
    rule = markdown.to_markdown(frame).splitlines()[1]
    assert [column.strip().endswith(":") for column in rule.strip("|").split("|")] == [False, True, True, True, False]
