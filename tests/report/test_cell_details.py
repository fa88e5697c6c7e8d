"""What the page shows of a cell that is opened, as data."""

import base64
import json
import zlib
from dataclasses import replace

import pytest

from benchrunner.report import cell_details
from benchrunner.report.cell_details import LONGEST_LINE, MOST_LINES, MOST_SAMPLES, details_of, packed_details
from samples import make_cell, make_record, make_row

CELL = make_cell()


def rank(number, times):
    return {"rank": number, "state": "done", "phase": "teardown", "phases_s": {}, "step_times_s": times}


def details(predicted=None, root="", in_detail=True, expected=(), cell=CELL, **record):
    row = make_row(cell, make_record(cell, **record))
    return details_of(replace(row, planned=replace(row.planned, predicted=predicted)), root, in_detail, expected)


def test_a_cell_that_is_ok_has_its_numbers():
    metrics = {"step_time_median_s": 0.01234567, "peak_memory_allocated_bytes": 2**30 * 1.2345}
    found = details(
        root="../a/", attempt=2, wall_s=12.345, metrics=metrics, phases_s={"measure": 1.23456, "build": 20.0},
        flags=["x"], reason="why", expected=["a\nb"],
    )  # fmt: skip
    assert found == {
        "slug": CELL.slug, "flags": ["x"], "expected": ["a b"], "command": make_record(CELL).command,
        "folder": "../a/cells/", "attempt": 2, "phases": {"build": 20.0, "measure": 1.23}, "wall_s": 12.3,
        "measured_gib": 1.23, "measured_ms": 12.35, "started": "2026-11-21T03:00:00+00:00",
    }  # fmt: skip
    assert list(found["phases"]) == ["build", "measure"]


def test_one_that_is_not_has_its_reason():
    found = details(status="failed", code="failed.exit", reason="be\ncause", wall_s=None, started_at=None)
    assert (found["code"], found["reason"]) == ("failed.exit", "be cause")
    assert not {"wall_s", "started", "measured_ms", "measured_gib", "samples_ms"} & set(found)


def test_a_search_that_is_ok_says_what_it_found():
    assert details(cell=make_cell(leaves={"micro_batch_size": "max"}), reason="max = 3")["reason"] == "max = 3"


def test_a_cell_without_a_record_has_its_verdict():
    row = make_row(CELL, verdict="unsupported", code="rule.x", reason="no", flags=["f"])
    found = details_of(row, "", True)
    command = found.pop("command")
    assert found == {"slug": CELL.slug, "code": "rule.x", "reason": "no", "flags": ["f"]}
    assert command.startswith("bench ")


@pytest.mark.parametrize(
    ("predicted", "shown"),
    [
        ({"peak_memory_bytes": int(2**30 * 1.5), "step_time_s": 0.123456, "bound": "estimate"}, (1.5, 123.5, None)),
        ({"peak_memory_bytes": 2**30, "step_time_s": None, "bound": "lower"}, (1.0, None, True)),
    ],
)
def test_a_prediction(predicted, shown):
    found = details(predicted)
    assert tuple(found.get(name) for name in ("predicted_gib", "predicted_ms", "at_least")) == shown


def test_samples_are_those_of_the_rank_that_took_longest_in_all():
    ranks = [rank(0, [0.3, 0.1]), rank(1, [0.2, 0.2512345]), rank(2, None), {"rank": 3}]
    assert details(ranks=ranks)["samples_ms"] == [200.0, 251.2]
    assert "samples_ms" not in details(ranks=ranks, in_detail=False)
    assert "samples_ms" not in details(ranks=ranks, status="invalid", code="c", reason="r")
    assert "samples_ms" not in details(ranks=[])
    assert len(details(ranks=[rank(0, [0.1] * (MOST_SAMPLES + 1))])["samples_ms"]) == MOST_SAMPLES


def test_flags_are_explained_where_there_is_room():
    assert details(flags=["unstable"])["flags"][0].startswith("unstable: ")
    assert details(flags=["unstable"], in_detail=False)["flags"] == ["unstable"]


def test_a_check_has_what_was_expected_and_what_was_seen():
    checks = {
        "shape": {"ok": True, "expected": 0, "observed": "a\nb", "note": "n\nm"},
        "trains": {"ok": False, "expected": None, "note": None},
    }
    assert details(checks=checks)["checks"] == [["shape", True, "0", "a b", "n m"], ["trains", False, "", "", ""]]


def test_evidence_is_where_it_stands_and_its_last_lines():
    found = details(evidence={"file": "f", "rule": "r", "evidence": "e", "lines": ["  raise", "x" * 999]})
    assert found["evidence"] == ["f", "r", "e", "  raise", "x" * LONGEST_LINE]
    lines = [str(number) for number in range(30)]
    assert details(evidence={"lines": lines})["evidence"] == lines[-MOST_LINES:]
    assert "evidence" not in details(evidence={"file": None})


def unpacked(rows, roots=None, expected=None):
    return json.loads(zlib.decompress(base64.b64decode(packed_details(rows, roots or {}, expected))))


def test_all_cells_are_packed_in_order_with_their_own_folders_and_expectations():
    other = make_cell(strategy="ddp")
    rows = [make_row(CELL, make_record(CELL)), make_row(other, make_record(other, command="\ud800"), sweep="cli/two")]
    first, second = unpacked(rows, {"cli/two": "../two/"}, {other.cell_id: ["é"]})
    assert (first["folder"], second["folder"]) == ("cells/", "../two/cells/")
    assert "expected" not in first and second["expected"] == ["é"]
    assert (first["slug"], second["slug"]) == (CELL.slug, other.slug)
    assert second["command"] == "?"


@pytest.mark.parametrize(("most", "number"), [(2, 0), (1, 2)])
def test_a_large_sweep_goes_without_the_sentences_of_flags(monkeypatch, most, number):
    monkeypatch.setattr(cell_details, "MOST_CELLS_IN_DETAIL", most)
    rows = [make_row(CELL, make_record(CELL, flags=["unstable"]))] * 2
    assert sum(found["flags"] == ["unstable"] for found in unpacked(rows)) == number
