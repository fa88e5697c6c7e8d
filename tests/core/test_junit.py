"""JUnit XML: what it counts, and that no text breaks it."""

from xml.etree import ElementTree

from hypothesis import given, settings
from hypothesis import strategies as st

from benchrunner.core.junit import Case, to_junit


def test_a_suite_counts_its_cases():
    cases = [Case(name="a", outcome="pass", time_s=1.0), Case(name="b", outcome="fail", message="slow", kind="oom"),
             Case(name="c", outcome="skip", message="no device", details=("one", "two"), suite="other")]  # fmt: skip
    (suite,) = ElementTree.fromstring(to_junit("t", cases).encode())
    assert suite.attrib == {"name": "t", "tests": "3", "failures": "1", "errors": "0", "skipped": "1"}
    assert [(case.get("classname"), case.get("time")) for case in suite] == [
        ("t", "1.00"),
        ("t", None),
        ("other", None),
    ]
    assert suite[1][0].tag == "failure" and suite[1][0].attrib == {"message": "slow", "type": "oom"}
    assert suite[2][0].tag == "skipped" and suite[2][0].text == "one\ntwo" and len(suite[0]) == 0


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=60))
def test_no_text_breaks_it(text):
    case = Case(name=text, outcome="fail", message=text, kind=text, details=(text,), suite=text)
    (suite,) = ElementTree.fromstring(to_junit(text, [case]).encode("utf-8"))
    assert [child.tag for child in suite[0]] == ["failure"] and len(suite[0][0]) == 0
