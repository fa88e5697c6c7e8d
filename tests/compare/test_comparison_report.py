"""A comparison in every form; no text of a log breaks one."""

import json
import math
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import pytest

from benchrunner.compare import comparison_report as report
from benchrunner.compare.effect import Effect
from benchrunner.compare.gate import CellResult, Comparison, GateOptions, compare
from benchrunner.compare.noise import Noise
from benchrunner.compare.pairing import CellPair, Pairing, pair_cells
from benchrunner.compare.side import MeasuredCell, Side
from benchrunner.core.paths import SweepPaths
from fake_sweeps import ENVIRONMENT, cells, make_plan
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


@pytest.fixture
def small():
    """A comparison by hand: one cell that is slower, one that was not tested, one that vanished and one that came."""
    planned = cells(4)
    sides = [
        Side(
            paths=SweepPaths(Path(f"/sweeps/cli/{name}")),
            plan=make_plan(planned),
            cells={},
            notes=[f"a note of {name}"],
        )
        for name in ("b", "n")
    ]
    measured = [MeasuredCell(planned=one, records=[make_record(one.cell)] * 2) for one in planned]
    failed = MeasuredCell(planned=planned[1], records=[make_record(planned[1].cell, "oom", "oom.device", "full")])
    pairing = Pairing(
        base=sides[0],
        new=sides[1],
        pairs=[CellPair(base=measured[0], new=measured[0]), CellPair(base=failed, new=failed)],
        vanished=[measured[2]],
        appeared=[measured[3]],
    )
    effect = Effect(log_ratio=math.log(1.1), standard_error=0.01, df=10.0)
    slower = CellResult(
        pair=pairing.pairs[0], verdict="FAIL", reason="it is", change="slower", base_value=1e-6, new_value=1.1e-6,
        effect=effect, alpha=0.05, num_pairs=3, attribution=["clock: odd"],
    )  # fmt: skip
    untested = CellResult(pair=pairing.pairs[1], verdict=None, reason="oom (oom.device)")
    noise = Noise(variance=1e-4, prior_df=math.inf, total_df=2.0, round_share=0.0, round_df=0.0)
    return Comparison(
        pairing=pairing, options=GateOptions(), cells=[untested, slower], noise=noise, num_alarms=1, num_alarm_tests=8,
        detectable=0.05, suspects=["python 3 → 4"], notes=["of all"],
    )  # fmt: skip


MARGIN = 0.022281389


def test_the_whole_document(small):
    document = report.to_document(small)
    untested, slower = document.pop("cells")
    assert document == {
        "schema_version": 1,
        "verdict": "FAIL",
        "base": "cli/b",
        "new": "cli/n",
        "metric": "time",
        "min_effect": 0.03,
        "detectable_effect": 0.05,
        "process_spread": pytest.approx(0.01),
        "num_false_alarms": 1,
        "num_false_alarm_tests": 8,
        "vanished": [{"cell_id": cells(4)[2].cell.cell_id, "slug": cells(4)[2].cell.slug}],
        "appeared": [{"cell_id": cells(4)[3].cell.cell_id, "slug": cells(4)[3].cell.slug}],
        "suspects": ["python 3 → 4"],
        "notes": ["a note of b", "a note of n", "of all"],
    }
    assert slower == {
        "cell_id": small.cells[1].pair.cell_id,
        "slug": small.cells[1].pair.slug,
        "verdict": "FAIL",
        "change": "slower",
        "reason": "it is",
        "base_status": "ok",
        "new_status": "ok",
        "base_value": 1e-6,
        "new_value": 1.1e-6,
        "effect": pytest.approx(0.1),
        "effect_low": pytest.approx(math.expm1(math.log(1.1) - MARGIN)),
        "effect_high": pytest.approx(math.expm1(math.log(1.1) + MARGIN)),
        "num_base_processes": 2,
        "num_new_processes": 2,
        "num_pairs": 3,
        "attribution": ["clock: odd"],
    }
    assert (untested["verdict"], untested["base_status"], untested["num_new_processes"]) == (None, "oom", 1)
    assert (untested["effect"], untested["effect_low"], untested["effect_high"]) == (None, None, None)
    assert report.to_document(replace(small, noise=None))["process_spread"] is None


def test_the_whole_text(small):
    first, second = (small.cells[1].pair.slug, small.cells[0].pair.slug)
    table, rest = report.to_text(small).splitlines()[:3], report.to_text(small).splitlines()[3:]
    assert [line.split("  ")[0] for line in table] == ["verdict", "FAIL", "–"]
    assert re.split(r"  +", table[0]) == [
        "verdict", "cell", "base µs/token", "new µs/token", "change", "interval", "processes",
    ]  # fmt: skip
    assert re.split(r"  +", table[1]) == ["FAIL", first, "1", "1.1", "+10.0 %", "+7.6 % to +12.5 %", "3 pairs"]
    assert re.split(r"  +", table[2])[1:] == [second, "–", "–", "–", "–", "1 + 1"]
    assert rest == [
        f"{first}: it is",
        "    clock: odd",
        f"{second}: oom (oom.device)",
        "suspect: python 3 → 4",
        f"vanished: {cells(4)[2].cell.slug} (was ok)",
        f"appeared: {cells(4)[3].cell.slug} (is ok)",
        "note: a note of b",
        "note: a note of n",
        "note: of all",
        "Minimum detectable effect: 5.0 % of a typical cell (processes of a cell vary by 1 %); "
        "minimum effect 3 %, two-sided, corrected for all tested cells.",
        "False alarms between halves of the same side: 1 of 8 (12.5 %).",
        "FAIL: 1 FAIL, 1 not tested of 2 cells, time of cli/n against cli/b",
    ]
    blind = report.to_text(replace(small, noise=None, num_alarm_tests=0)).splitlines()
    assert blind[-3].startswith("Minimum detectable effect: unknown, no cell was measured in several processes; ")
    assert blind[-2].endswith("not measured, no cell was measured in several processes.")


def test_the_whole_markdown_and_its_cases(small):
    text = report.to_markdown(small).splitlines()
    assert text[0] == "# Comparison: cli/n against cli/b"
    assert text[2].startswith("**FAIL: 1 FAIL") and text[2].endswith("**")
    assert text[4].endswith("| processes | why |") and text[5] == "| --- " * 8 + "|"
    assert text[6].endswith("| 3 pairs | it is; clock: odd |")
    assert text[9:12] == ["## Suspects", "", "- python 3 → 4"] and text[13] == "## How sure this is"
    assert [line[:12] for line in text[15:18]] == ["- vanished: ", "- appeared: ", "- note: a no"]
    assert report.to_markdown(small).endswith("(12.5 %).\n")
    assert "## Suspects" not in report.to_markdown(replace(small, suspects=[]))
    suite = ElementTree.fromstring(report.to_xml(small)).find("testsuite")
    skipped, failed = suite.iter("testcase")
    assert suite.get("name") == "bench compare time"
    message = "FAIL: +10.0 % (+7.6 % to +12.5 %): it is; clock: odd"
    assert failed.find("failure").get("message") == message and failed.get("name") == small.cells[1].pair.slug
    assert skipped.find("skipped").get("message") == "not tested: oom (oom.device)"


def test_what_is_slower_stands_above_what_is_less_slow(small):
    slower = small.cells[1]
    less = replace(slower, effect=replace(slower.effect, log_ratio=0.04), num_pairs=0)
    lines = report.to_text(replace(small, cells=[less, slower])).splitlines()
    assert ["+10.0 %" in lines[1], "+4.1 %" in lines[2], lines[2].endswith("2 + 2")] == [True] * 3
    broken = replace(less, effect=None, reason="works no more")
    lines = report.to_text(replace(small, cells=[broken, less])).splitlines()
    assert "+4.1 %" in lines[1] and "–" in lines[2], "what has no number comes after what has"


def test_of_cells_that_pass_only_those_that_are_faster_are_explained(small):
    slower = small.cells[1]
    cells = [
        replace(slower, verdict="PASS", change="same", reason="no difference", attribution=[]),
        replace(slower, verdict="PASS", change="faster", reason="it is faster", attribution=[]),
        replace(slower, verdict="INCONCLUSIVE", change="undecided", reason="who knows", attribution=[]),
    ]
    lines = report.to_text(replace(small, cells=cells)).splitlines()
    slug = slower.pair.slug
    assert [line for line in lines if line.startswith(f"{slug}: ")] == [f"{slug}: who knows", f"{slug}: it is faster"]
    assert lines[-1].startswith("INCONCLUSIVE: 1 INCONCLUSIVE, 2 PASS of 3 cells, time of ")


def test_a_factor_beyond_all_measure_is_shown():
    assert report.percent(1000.0) == report.percent(20.0) != report.percent(19.0)
