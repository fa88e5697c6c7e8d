import fcntl
import json
import os
from datetime import datetime

from benchrunner.run.events import Events
from fake_sweeps import OOM, cells, run
from samples import make_cell, make_record


def test_what_happens_in_a_run(paths, tmp_path):
    planned = cells(2)
    file = tmp_path / "events.jsonl"
    run(paths, planned, {planned[0].cell.slug: OOM}, events=file)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["event"] for line in lines] == ["begin", "started", "finished", "started", "finished", "end"]
    assert (lines[0]["num_cells"], lines[0]["directory"]) == (2, str(paths.root))
    started = [(line["slug"], line["attempt"], line["devices"]) for line in lines if line["event"] == "started"]
    assert started == [(one.cell.slug, 1, [0]) for one in planned]
    assert lines[-1]["counts"] == {"oom": 1, "ok": 1} and lines[-1]["exit_code"] == 0
    assert {(line["slug"], line["status"]) for line in lines if line["event"] == "finished"} == {
        (planned[0].cell.slug, "oom"), (planned[1].cell.slug, "ok"),
    }  # fmt: skip


def test_what_each_line_says(tmp_path):
    file, record = tmp_path / "events.jsonl", make_record(make_cell(), "oom", "oom.device", "no", flags=["unstable"])
    events = Events(file)
    events.begin(2, tmp_path)
    events.started(record.slug, 3, (0, 1))
    events.finished(record)
    events.end({"oom": 1}, 4)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert all(line.pop("schema_version") == 1 and datetime.fromisoformat(line.pop("at")) for line in lines)
    finished = {
        "slug": record.slug, "cell_id": record.cell_id, "status": "oom", "reason_code": "oom.device", "reason": "no",
        "attempt": 1, "wall_s": 12.5, "flags": ["unstable"], "metrics": {},
    }  # fmt: skip
    assert lines == [
        {"event": "begin", "num_cells": 2, "directory": str(tmp_path)},
        {"event": "started", "slug": record.slug, "attempt": 3, "devices": [0, 1]},
        {"event": "finished", **finished},
        {"event": "end", "counts": {"oom": 1}, "exit_code": 4},
    ]


def test_after_a_line_that_could_not_be_written_none_follows(tmp_path):
    file = tmp_path / "missing" / "events.jsonl"
    events = Events(file)
    events.end({}, 0)
    file.parent.mkdir()
    events.end({}, 0)
    assert not file.exists()


def test_a_file_that_cannot_be_written_does_not_end_the_sweep(paths, tmp_path):
    summary, _ = run(paths, cells(1), events=tmp_path)
    assert summary.counts == {"ok": 1}


def test_a_pipe_that_nobody_reads_does_not_hold_up_the_sweep(paths, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert run(paths, cells(1), events=pipe)[0].counts == {"ok": 1}
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 4096)
    assert run(paths, cells(12), events=pipe)[0].counts == {"ok": 12}
    os.close(reader)
