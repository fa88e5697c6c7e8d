"""A sweep is held to its lock cell by cell, and whatever is not as expected is named with its kind."""

import json
from xml.etree import ElementTree

import pytest

from benchrunner.compare import verify_report
from benchrunner.compare.lock_file import lock_of
from benchrunner.compare.verify import verify
from fake_sweeps import cells
from sides import make_side

OK = ("ok",)
OOM = ("oom", "oom.device", "rank 0 ran out of memory")
REFUSED = ("unsupported", "runtime.dtype", "the library says | no <b>\x1b[31m never\x00")


def held(tmp_path, before, after, planned=None):
    planned = planned or cells(len(before))
    lock = lock_of(make_side(tmp_path / "before", list(zip(planned, before, strict=True))))
    return verify(make_side(tmp_path / "after", list(zip(planned, after, strict=True))), lock, "x.lock")


def test_the_same_verdicts_pass(tmp_path):
    found = held(tmp_path, [OK, OOM, REFUSED], [OK, OOM, REFUSED])
    assert (found.has_passed, found.deviations, found.num_as_expected) == (True, [], 3)
    assert verify_report.to_document(found)["verdict"] == "PASS"
    assert found.headline.startswith("PASS: 3 of 3 cells of ")


@pytest.mark.parametrize(
    ("before", "after", "kind"),
    [
        (OK, OOM, "unexpected failure"),
        (OK, ("failed", "failed.exception", "boom"), "unexpected failure"),
        (OOM, OK, "unexpected pass"),
        (OOM, ("oom", "oom.host", "the host"), "another reason"),
        (OOM, REFUSED, "another reason"),
        (OK, None, "missing"),
        (OOM, None, "missing"),
        (OK, ("skipped", "skipped.budget", "no time"), "missing"),
    ],
)
def test_each_deviation_has_its_kind(tmp_path, before, after, kind):
    found = held(tmp_path, [OK, before], [OK, after])
    assert [one.kind for one in found.deviations] == [kind]
    assert not found.has_passed


def test_a_cell_that_is_gone_from_the_plan_is_missing_and_one_more_is_not_in_the_lock(tmp_path):
    first, second, third = cells(3)
    lock = lock_of(make_side(tmp_path / "before", [(first, OK), (second, OK)]))
    found = verify(make_side(tmp_path / "after", [(first, OK), (third, OK)]), lock, "x.lock")
    assert [(one.kind, one.slug) for one in found.deviations] == [
        ("missing", second.cell.slug),
        ("not in the lock", third.cell.slug),
    ]
    assert found.num_as_expected == 1


def test_an_empty_sweep_proves_nothing(tmp_path):
    found = held(tmp_path, [OK], [OK])
    empty = verify(make_side(tmp_path / "e", [(cells(1)[0], OK)]), {**lock_like(found), "cells": []}, "x.lock")
    assert not empty.has_passed


def lock_like(found):
    return {"schema_version": 1, "sweep": "cli", "hardware": "cpu"}


def test_no_text_of_a_reason_breaks_any_form(tmp_path):
    found = held(tmp_path, [OK, OK], [OK, REFUSED])
    xml = ElementTree.fromstring(verify_report.to_xml(found))
    assert [case.find("failure") is not None for case in xml.iter("testcase")] == [True, False]
    markdown = verify_report.to_markdown(found)
    [row] = [line for line in markdown.splitlines() if line.startswith("| unexpected failure")]
    assert row.replace("\\|", "").count("|") == 6
    assert "<b>" not in markdown and "\x1b" not in verify_report.to_text(found)
    document = json.loads(json.dumps(verify_report.to_document(found)))
    assert (document["verdict"], document["deviations"][0]["kind"]) == ("FAIL", "unexpected failure")


def test_a_verification_in_every_form(tmp_path):
    found = held(tmp_path, [OK, OK, OOM], [OK, OOM, OOM])
    one, line = found.deviations[0], found.deviations[0].line
    headline = f"FAIL: 2 of 3 cells of {found.title} are as x.lock expects"
    found.notes.append("odd")
    assert line == f"unexpected failure: {one.slug}: expected ok, found oom (oom.device): rank 0 ran out of memory"
    assert verify_report.to_text(found) == f"{line}\nnote: odd\n{headline}"
    document = verify_report.to_document(found)
    assert document.pop("deviations") == [
        {
            "kind": "unexpected failure",
            "slug": one.slug,
            "expected": "ok",
            "found": "oom (oom.device)",
            "reason": "rank 0 ran out of memory",
        }
    ]
    assert document == {
        "schema_version": 1,
        "verdict": "FAIL",
        "sweep": found.title,
        "lock": "x.lock",
        "num_expected": 3,
        "num_as_expected": 2,
        "notes": ["odd"],
    }
    cases = list(ElementTree.fromstring(verify_report.to_xml(found)).iter("testcase"))
    assert [case.get("name") for case in cases] == [one.slug, *found.slugs] and len(found.slugs) == 2
    assert [case.find("failure") is not None for case in cases] == [True, False, False]
    assert cases[0].find("failure").get("message") == line
    markdown = verify_report.to_markdown(found).splitlines()
    assert markdown[4:6] == ["| what | cell | expected | found | reason |", "| --- | --- | --- | --- | --- |"]
    assert markdown[-1] == "- odd" and found.title.replace("/", "") in markdown[0].replace("/", "")


def test_what_passed_or_is_gone_has_no_reason(tmp_path):
    found = held(tmp_path, [OOM, OK], [OK, OK])
    assert found.deviations[0].line.endswith("expected oom (oom.device), found ok")
    planned = cells(2)
    lock = lock_of(make_side(tmp_path / "two", [(one, OK) for one in planned]))
    [gone] = verify(make_side(tmp_path / "one", [(planned[0], OK)]), lock, "x.lock").deviations
    assert gone.line.endswith("expected ok, found no such cell")
    assert verify_report.to_markdown(found).splitlines()[-1].endswith("| oom (oom.device) | ok | – |")
    [more] = verify(
        make_side(tmp_path / "more", [(one, OK) for one in planned]), lock | {"cells": lock["cells"][:1]}, "x"
    ).deviations
    assert more.line == f"not in the lock: {planned[1].cell.slug}: expected nothing, found ok"
    [bad] = verify(
        make_side(tmp_path / "bad", [(planned[0], OK), (planned[1], OOM)]), lock | {"cells": lock["cells"][:1]}, "x"
    ).deviations
    assert bad.line.endswith("found oom (oom.device): rank 0 ran out of memory")


def test_a_slug_that_is_worded_anew_is_the_same_cell(tmp_path):
    [planned] = cells(1)
    side = make_side(tmp_path, [(planned, OK)])
    lock = lock_of(side)
    lock["cells"][0]["cell"] = "older-wording"
    assert verify(side, lock, "x.lock").has_passed
    lock["cells"][0] |= {"status": "oom", "reason_code": "oom.device"}
    assert verify(side, lock, "x.lock").deviations[0].slug == planned.cell.slug


def test_a_lock_of_other_hardware_is_said(tmp_path):
    planned = cells(1)
    side = make_side(tmp_path, [(planned[0], OK)])
    assert verify(side, {**lock_of(side), "hardware": "h200"}, "x.lock").notes == [
        "the lock is of hardware h200, the sweep of cpu"
    ]
