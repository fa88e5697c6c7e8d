"""Everything about one cell, section by section."""

from dataclasses import replace

import pytest

from benchrunner.core.paths import SweepPaths
from benchrunner.report.cell_text import TAIL_BYTES, TAIL_LINES, cell_sections
from samples import make_cell, make_record, make_row

CHECKS = {
    "shape": {"ok": True, "expected": 5, "observed": 6, "note": "n"},
    "sharded": {"ok": False, "observed": "whole"},
    "trains": {"ok": None},
}
RANKS = [{"rank": 0, "state": "done", "phase": "teardown", "phases_s": {}, "step_times_s": [0.1, 0.25]}]


def sections(row, root, rows=(), expected=()):
    return dict(cell_sections(row, rows, SweepPaths(root), expected))


def test_a_cell_that_is_ok(tmp_path):
    cell = make_cell()
    earlier = [{"attempt": 1, "status": "failed", "reason_code": "failed.exit", "reason": "r"}]
    record = make_record(
        cell, checks=CHECKS, ranks=RANKS, phases_s={"measure": 2.0, "build": 1.234}, earlier_attempts=earlier,
        flags=["f"],
    )  # fmt: skip
    found = sections(make_row(cell, record), tmp_path, expected=["it is faster"])
    measured = found.pop("Measured")
    assert found == {
        "Cell": [cell.slug, "ok"],
        "Flags": ["f"],
        "Expected of it": ["it is faster"],
        "Checks": ["✓ shape: expected 5; observed 6; n", "✗ sharded: observed whole", "? trains: no details"],
        "Phases": ["build: 1.23 s", "measure: 2.00 s"],
        "Steps of the window (ms)": ["100, 250"],
        "Earlier attempts": ["1: failed failed.exit"],
        "Run it again": [record.command],
    }
    assert list(found)[-1] == "Run it again"
    assert {"step ms: 12.35", "tokens/s/device: 10,370", "alloc retries: 0"} < set(measured)
    assert not any(line.startswith(("MFU", "compile")) for line in measured), "what is unknown is left out"


def test_a_cell_that_failed_says_why_and_what_it_stands_on(tmp_path):
    cell = make_cell(strategy="ddp")
    evidence = {"file": "rank0.err", "lines": ["  raise"]}
    row = make_row(cell, make_record(cell, "failed", "failed.exception", "be\ncause", evidence=evidence))
    found = sections(replace(row, planned=replace(row.planned, left_out=("a=1", "b=2"))), tmp_path)
    assert found["Cell"] == [cell.slug, "failed", "failed.exception: be cause", "does not read: a=1 b=2"]
    assert found["Evidence"] == ["rank0.err", "  raise"]
    assert found["Nearest cell that works"] == ["no cell of this sweep is ok"] and "Measured" not in found


def test_a_cell_without_a_record_has_its_verdict_and_its_command(tmp_path):
    row = make_row(make_cell(), verdict="unsupported", code="rule.x", reason="it cannot")
    found = sections(row, tmp_path)
    assert list(found) == ["Cell", "Run it again", "Nearest cell that works"]
    assert found["Cell"][1:] == ["unsupported", "rule.x: it cannot"]
    assert found["Run it again"][0].startswith("bench ")


def test_a_search_that_is_ok_says_what_it_found(tmp_path):
    cell = make_cell(leaves={"micro_batch_size": "max"})
    row = make_row(cell, make_record(cell, reason="max = 12", metrics={}))
    assert sections(row, tmp_path)["Cell"] == [cell.slug, "ok", "max = 12"]


def test_the_nearest_cell_that_works_differs_in_the_fewest_options_and_settings(tmp_path):
    failed = make_cell(strategy="ddp", precision="fp8", leaves={"seed": 3, "compile.mode": "a"})
    works = [
        make_cell(activation_checkpointing="full", leaves={"seed": 3}),
        make_cell(strategy="ddp", leaves={"compile.mode": "a", "seq_len": 64}),
        make_cell(strategy="ddp", precision="fp8", leaves={"seed": 3, "compile.mode": "a", "seq_len": 64}),
    ]
    row, rows = (
        make_row(failed, make_record(failed, "failed", "c", "r")),
        [make_row(one, make_record(one)) for one in works],
    )
    broken = make_row(failed, make_record(failed, "oom", "oom.device", "r"))
    command = rows[1].record.command
    found = sections(row, tmp_path, [broken, *rows[:2]])["Nearest cell that works"]
    assert found == [
        f"{works[1].slug}: precision=bf16 (not fp8), seed=default (not 3), seq_len=64 (not default)",
        command,
    ]
    found = sections(row, tmp_path, [broken, *rows])["Nearest cell that works"]
    assert found[0] == f"{works[2].slug}: seq_len=64 (not default)"


# --- logs


LOGS = {
    "agent.log": "agent\n",
    "rank0.out": "out\n\n  printed\n",
    "rank1.err": "",
    "rank0.err": "\x1b[31mred\x1b[0m\n" + "".join(f"line {number}\n\n" for number in range(TAIL_LINES - 1)),
    "other.txt": "no log\n",
}


@pytest.fixture
def logged(tmp_path):
    """(status) → the sections of a cell whose second attempt has logs."""
    cell = make_cell()

    def show(status):
        row = make_row(cell, make_record(cell, status, None if status == "ok" else "c", "r", attempt=2))
        folder = tmp_path / row.log_folder
        folder.mkdir(parents=True)
        for name, text in LOGS.items():
            (folder / name).write_text(text)
        (folder / "rank2.out").mkdir()
        return folder, sections(row, tmp_path)

    return show


def test_logs_of_a_cell_that_is_ok_are_named(logged):
    folder, found = logged("ok")
    names = ("rank0.err", "rank1.err", "rank0.out", "rank2.out", "agent.log")
    assert found["Logs"] == [str(folder / name) for name in names]
    assert not any(title.startswith("End of") for title in found)


def test_logs_of_a_cell_that_failed_end_with_their_last_lines(logged):
    _, found = logged("failed")
    ends = {title.removeprefix("End of "): lines for title, lines in found.items() if title.startswith("End of")}
    assert list(ends) == ["rank0.err", "rank0.out", "agent.log"], "what is empty or cannot be read has no end"
    assert ends["rank0.err"] == ["red", *(f"line {number}" for number in range(TAIL_LINES - 1))]
    assert (ends["rank0.out"], ends["agent.log"]) == (["out", "  printed"], ["agent"])


def test_of_a_long_log_its_end_is_read_alone(logged, monkeypatch):
    monkeypatch.setitem(LOGS, "rank0.err", f"first\n{'x' * TAIL_BYTES}\nlast\n")
    _, found = logged("failed")
    first, last = found["End of rank0.err"]
    assert set(first) == {"x"} and len(first) == TAIL_BYTES - len("\nlast\n") and last == "last"


def test_bytes_that_are_no_text_hide_none_of_a_log(tmp_path):
    row = make_row(make_cell(), make_record(make_cell(), "failed", "c", "r"))
    folder = tmp_path / row.log_folder
    folder.mkdir(parents=True)
    (folder / "agent.log").write_bytes(b"a\xffb\n")
    assert sections(row, tmp_path)["End of agent.log"] == ["a\ufffdb"]


def test_a_log_shows_its_last_lines(logged, monkeypatch):
    monkeypatch.setitem(LOGS, "rank0.err", "".join(f"{number}\n" for number in range(40)))
    _, found = logged("failed")
    assert found["End of rank0.err"] == [str(number) for number in range(40 - TAIL_LINES, 40)]
