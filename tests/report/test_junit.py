"""JUnit XML: what it counts, and that no text of a reason breaks it."""

from xml.etree import ElementTree

from hypothesis import given, settings
from hypothesis import strategies as st

from benchrunner.report.content import make_tables
from benchrunner.report.junit import to_junit
from samples import make_cell, make_record, make_row, make_rows


def test_a_case_a_cell_and_what_became_of_it():
    suite = ElementTree.fromstring(to_junit(make_tables("t", make_rows(), [], [])).encode())[0]
    assert suite.attrib == {"name": "t", "tests": "7", "failures": "2", "errors": "0", "skipped": "3"}
    kinds = [[child.tag for child in case] for case in suite]
    assert kinds == [[], ["failure"], ["skipped"], ["skipped"], ["skipped"], ["failure"], []]
    assert suite[1][0].attrib["type"] == "oom" and suite[1][0].attrib["message"].startswith("oom.device: rank 1")
    assert "bench model=debug" in suite[1][0].text
    assert {case.attrib["classname"] for case in suite} == {"cli/one"}


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=60))
def test_no_text_breaks_it(text):
    row = make_row(make_cell(), make_record(make_cell(), "failed", "failed.exception", text, command=text), sweep=text)
    (suite,) = ElementTree.fromstring(to_junit(make_tables(text, [row], [], [])).encode("utf-8"))
    assert [child.tag for child in suite[0]] == ["failure"] and len(suite[0][0]) == 0
