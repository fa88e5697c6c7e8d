import fcntl
import json
import os

from fake_sweeps import OOM, cells, run


def test_what_happens_in_a_run(paths, tmp_path):
    planned = cells(2)
    file = tmp_path / "events.jsonl"
    run(paths, planned, {planned[0].cell.slug: OOM}, events=file)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["event"] for line in lines] == ["begin", "started", "finished", "started", "finished", "end"]
    assert (lines[0]["num_cells"], lines[0]["directory"]) == (2, str(paths.root))
    assert lines[-1]["counts"] == {"oom": 1, "ok": 1} and lines[-1]["exit_code"] == 0
    assert {(line["slug"], line["status"]) for line in lines if line["event"] == "finished"} == {
        (planned[0].cell.slug, "oom"), (planned[1].cell.slug, "ok"),
    }  # fmt: skip


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
