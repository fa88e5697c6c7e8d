import os
import subprocess
import sys

import pytest

from benchrunner.core import log_cap
from benchrunner.core.log_cap import HEAD_BYTES, SLACK_BYTES, TAIL_BYTES, LogCap, shorten_files
from benchrunner.core.units import MIB

WRITER = """
import os, sys
for number in range(int(sys.argv[1])):
    os.write(1, b"%07d " % number + b"x" * 1015 + b"\\n")
"""
MOST_BYTES = HEAD_BYTES + TAIL_BYTES + SLACK_BYTES + MIB


def on_disk(path):
    return path.stat().st_blocks * 512


def append(path, text):
    with open(path, "ab") as file:
        file.write(text)


def test_a_log_keeps_its_head_and_its_tail_and_no_disk_between(tmp_path):
    path = tmp_path / "rank0.out"
    cap = LogCap([path, tmp_path / "rank0.err"])
    for number in range(40):
        append(path, (b"%06d " % number + b"x" * 1017) * 1024)
        cap.trim()
        assert on_disk(path) <= MOST_BYTES + MIB
    shorten_files([path])
    text = path.read_bytes()
    assert len(text) < HEAD_BYTES + TAIL_BYTES + 100 and text.startswith(b"000000 ") and b"\0" not in text
    assert text.endswith((b"000039 " + b"x" * 1017) * 1024) and b"bytes of this log were not kept" in text


@pytest.mark.parametrize("size", [0, 1, HEAD_BYTES + TAIL_BYTES])
def test_a_log_of_usual_length_is_not_touched(tmp_path, size):
    path = tmp_path / "rank0.out"
    append(path, b"x" * size)
    before = path.stat()
    LogCap([path]).trim()
    shorten_files([path])
    after = path.stat()
    assert (after.st_ino, after.st_mtime_ns, after.st_size) == (before.st_ino, before.st_mtime_ns, size)


def test_the_hole_is_in_the_middle_alone_and_counted(tmp_path):
    """The file keeps its length, so that who writes into it goes on where it was."""
    path, line = tmp_path / "rank0.out", b"%07d\n"
    written = b"".join(line % number for number in range((HEAD_BYTES + TAIL_BYTES + SLACK_BYTES) // 8 + MIB // 4))
    append(path, written)
    LogCap([path]).trim()
    with_hole = path.read_bytes()
    assert len(with_hole) == len(written) and on_disk(path) < len(written) - MIB
    assert with_hole[:HEAD_BYTES] == written[:HEAD_BYTES] and with_hole[-TAIL_BYTES:] == written[-TAIL_BYTES:]
    shorten_files([path])
    left_out = len(written) - HEAD_BYTES - TAIL_BYTES
    assert f"\n… {left_out:,} bytes of this log were not kept …\n".encode() in path.read_bytes()


def test_a_missing_or_linked_log_stops_nobody(tmp_path):
    target, last = tmp_path / "target", tmp_path / "last"
    for path in (target, last):
        append(path, b"x" * (HEAD_BYTES + TAIL_BYTES + SLACK_BYTES + 2 * MIB))
    (tmp_path / "link").symlink_to(target)
    paths = [tmp_path / "missing", tmp_path / "link", last]
    LogCap(paths).trim()
    shorten_files([tmp_path / "missing", last])
    assert on_disk(target) > MOST_BYTES and last.stat().st_size < HEAD_BYTES + TAIL_BYTES + 100


def test_where_files_have_no_holes_the_tail_is_what_comes_then(tmp_path, monkeypatch):
    monkeypatch.setattr(log_cap, "_fallocate", lambda *place: False)
    path = tmp_path / "rank0.out"
    cap = LogCap([path])
    for number in range(60):
        append(path, b"%d" % (number % 10) * MIB)
        cap.trim()
        assert on_disk(path) <= MOST_BYTES + MIB
    assert path.read_bytes()[:1] == b"0" and path.read_bytes()[-1:] == b"9"


def test_what_is_no_file_is_left_alone(tmp_path):
    os.mkfifo(tmp_path / "rank0.out")
    (tmp_path / "rank0.err").symlink_to("/dev/zero")
    (tmp_path / "agent.log").mkdir()
    LogCap(tmp_path.iterdir()).trim()
    shorten_files(tmp_path.iterdir())
    assert len(list(tmp_path.iterdir())) == 3


def test_a_process_that_writes_while_its_log_is_trimmed_loses_neither_head_nor_tail(tmp_path):
    path, count = tmp_path / "rank0.out", 100_000
    with open(path, "ab") as file:
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(count)], stdout=file)
    cap = LogCap([path])
    while process.poll() is None:
        cap.trim()
    cap.trim()
    assert on_disk(path) <= MOST_BYTES + MIB
    shorten_files([path])
    numbers = [int(line[:7]) for line in path.read_bytes().splitlines() if line[:7].isdigit() and len(line) == 1023]
    assert numbers[0] == 0 and numbers[-1] == count - 1
    assert numbers[-1000:] == list(range(count - 1000, count))
