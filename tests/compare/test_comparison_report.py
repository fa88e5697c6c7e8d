"""A comparison in every form; no text of a log breaks one."""

import json
import xml.etree.ElementTree as ElementTree

import pytest

from benchrunner.compare import comparison_report as report
from benchrunner.compare.gate import GateOptions, compare
from benchrunner.compare.pairing import pair_cells
from fake_sweeps import ENVIRONMENT, cells
from samples import make_record
from sides import timed_side

BAD = "a | b\n<script>`*_ \x1b[31m\x00]]>&\u202e\ud7ff\ufffe"


@pytest.fixture
def found(tmp_path):
    planned = cells(4)
    base = timed_side(tmp_path / "b", [(one, (1.0, 1.001, 0.999)) for one in planned])
    failed = [make_record(planned[3].cell, "failed", "failed.exception", BAD)]
    after = [(planned[0], (1.1, 1.101, 1.099)), (planned[1], (1.0, 1.001, 0.999)), (planned[2], (0.9, 0.91, 0.89))]
    environment = ENVIRONMENT | {"variables": {"CUDA_X": BAD}}
    new = timed_side(tmp_path / "n", [*after, (planned[3], failed)], environment=environment)
    return compare(pair_cells(base, new), GateOptions())


def test_the_terminal_ends_with_the_verdict_and_says_how_sure_it_is(found):
    lines = report.to_text(found).splitlines()
    assert lines[-1].startswith("FAIL: 2 FAIL, 2 PASS of 4 cells, time of cli/")
    assert lines[-2] == "False alarms between halves of the same side: 0 of 6 (0.0 %)."
    assert lines[-3].startswith("Minimum detectable effect: 3.")
    assert "\x1b" not in "".join(lines) and "\u202e" not in "".join(lines)
    table = [line.split()[0] for line in lines[:5]]
    assert table == ["verdict", "FAIL", "FAIL", "PASS", "PASS"]


def test_markdown_rows_are_whole(found):
    text = report.to_markdown(found)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {row.replace("\\|", "").count("|") for row in rows} == {9}
    assert "<script>" not in text and len(rows) == 6


def test_junit_has_a_case_a_cell(found):
    suite = ElementTree.fromstring(report.to_xml(found)).find("testsuite")
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("4", "2", "0")


def test_json_has_effects_as_shares(found):
    document = json.loads(json.dumps(report.to_document(found), allow_nan=False))
    first = document["cells"][0]
    assert (document["verdict"], first["verdict"], first["change"]) == ("FAIL", "FAIL", "slower")
    assert first["effect_low"] < first["effect"] < first["effect_high"]
    assert first["effect"] == pytest.approx(0.1, abs=1e-3)
    assert document["cells"][3]["effect"] is None
