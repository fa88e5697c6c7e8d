import errno
import json
import os
import socket
import stat
from pathlib import Path

import pytest

from benchrunner.core import files
from benchrunner.core.errors import DamagedFile, OtherVersion
from benchrunner.core.files import decode, open_regular, read_bytes, read_json, write_bytes, write_json, write_text
from benchrunner.core.record import Record
from benchrunner.core.units import MIB
from benchrunner.store.runs import RunsFile


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_replaces_a_file_between_two_looks_is_not_waited_for(tmp_path, monkeypatch, make):
    path = tmp_path / "record.json"
    make(path)
    regular = os.stat_result((stat.S_IFREG, *[0] * 9))
    monkeypatch.setattr(files.os, "stat", lambda path: regular)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(DamagedFile, match="is in its place"):
        open_regular(path)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_file_that_is_not_there_is_not_damaged(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "runs.json", RunsFile, limit_bytes=100)


def test_a_file_is_read_up_to_its_limit(tmp_path):
    path = tmp_path / "x"
    write_bytes(path, [b"12", b"34"])
    assert read_bytes(path, limit_bytes=4) == b"1234"
    with pytest.raises(DamagedFile, match="MiB large"):
        read_bytes(path, limit_bytes=3)


def test_types_are_not_converted():
    run = '{"runs": [{"num_attempted": %s}]}'
    assert decode((run % "1").encode(), RunsFile)["runs"][0].num_attempted == 1
    for other in ('"1"', "1.0", "true", "null", "[1]"):
        with pytest.raises(DamagedFile, match=r"runs\.0\.num_attempted: input should be a valid integer"):
            decode((run % other).encode(), RunsFile)


def test_a_hostile_place_is_cleaned_and_cut():
    with pytest.raises(DamagedFile) as caught:
        decode(b'{"runs": [{"counts": {"\\u001b[31m\\n\\u202e%s": "x"}}]}' % (b"k" * 500), RunsFile)
    assert str(caught.value).isprintable() and len(str(caught.value)) <= 200


def test_thousands_of_mistakes_are_counted_and_not_listed():
    with pytest.raises(DamagedFile, match="5000 values are not what they should be"):
        decode(b'{"runs": [%s]}' % b", ".join([b"1"] * 5000), RunsFile)


def test_another_version_is_told_apart_from_damage():
    with pytest.raises(OtherVersion, match="schema_version 2, this benchrunner reads 1"):
        decode(b'{"schema_version": 2}', Record, version=1)


@pytest.mark.parametrize(("num_stale", "is_read"), [(1, True), (2, True), (99, False)])
def test_a_stale_handle_is_opened_again(tmp_path, monkeypatch, num_stale, is_read):
    """What a network file system says when another host has replaced the file."""
    path = tmp_path / "x"
    write_bytes(path, [b"1234"])
    opened, left = os.open, [num_stale]

    def stale(*arguments, **more):
        left[0] -= 1
        if left[0] >= 0:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return opened(*arguments, **more)

    monkeypatch.setattr(files.os, "open", stale)
    if is_read:
        assert read_bytes(path, limit_bytes=4) == b"1234"
    else:
        with pytest.raises(DamagedFile, match=r"cannot be read \(Stale file handle\)"):
            read_bytes(path, limit_bytes=4)


def test_what_a_user_names_is_written_into_and_never_replaced_by_a_file(tmp_path):
    pipe, link, target, new = (tmp_path / name for name in ("pipe", "link", "target", "new"))
    os.mkfifo(pipe)
    link.symlink_to(target)
    target.write_text("longer than what comes")
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    for path in (pipe, link, new):
        files.write_output(path, "text")
    assert os.read(reader, 100) == b"text" and link.is_symlink() and target.read_text() == new.read_text() == "text"
    os.close(reader)
    with pytest.raises(OSError):
        files.write_output(pipe, "nobody reads")
    assert pipe.is_fifo()


def test_what_lies_in_a_file_s_place_is_named(tmp_path):
    os.mkdir(tmp_path / "folder")
    os.mkfifo(tmp_path / "fifo")
    os.symlink(tmp_path / "nowhere", tmp_path / "link")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
    places = {"folder": "a directory is", "fifo": "a FIFO is", "socket": "a socket is", "link": "a link to nothing is"}
    for name, what in places.items():
        with pytest.raises(DamagedFile) as caught:
            open_regular(tmp_path / name)
        assert str(caught.value) == f"{what} in its place"
    with pytest.raises(DamagedFile, match=r"^a device is in its place$"):
        open_regular(Path("/dev/null"))


def test_a_file_s_size_is_in_mebibytes(tmp_path):
    write_bytes(tmp_path / "x", [b"x" * (3 * MIB)])
    with pytest.raises(DamagedFile, match=r"^it is 3 MiB large, at most 2 are read$"):
        read_bytes(tmp_path / "x", limit_bytes=2 * MIB)


def test_a_file_is_synced_before_it_takes_its_name_unless_it_can_be_made_again(tmp_path, monkeypatch):
    steps = []
    monkeypatch.setattr(files.os, "fsync", lambda descriptor: steps.append("sync"))
    monkeypatch.setattr(files.os, "replace", lambda old, new: steps.append("rename"))
    write_bytes(tmp_path / "x", [b"1"])
    write_text(tmp_path / "x", "1")
    write_json(tmp_path / "x", 1)
    assert steps == ["sync", "rename"] * 3
    steps.clear()
    write_json(tmp_path / "x", 1, sync=False)
    assert steps == ["rename"]


def test_json_is_written_for_people_and_ends_its_line(tmp_path):
    write_json(tmp_path / "x", {"a": [1]})
    assert (tmp_path / "x").read_text() == '{\n "a": [\n  1\n ]\n}\n'
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "x", float("nan"))


def test_a_failed_write_says_why_and_leaves_nothing(tmp_path, monkeypatch):
    """Also where the temporary file went with its folder: the disk's own error is what counts."""

    def fail(old, new):
        os.unlink(old)
        raise OSError(errno.EIO, "gone")

    monkeypatch.setattr(files.os, "replace", fail)
    with pytest.raises(OSError, match="gone"):
        write_text(tmp_path / "x", "1")
    assert list(tmp_path.iterdir()) == []


def test_the_version_and_the_limit_hold_for_what_is_read(tmp_path):
    (tmp_path / "x").write_text('{"schema_version": 2}')
    with pytest.raises(OtherVersion):
        read_json(tmp_path / "x", Record, limit_bytes=1000, version=1)
    (tmp_path / "y").write_text(json.dumps({"runs": [], "more": list(range(60))}))
    with pytest.raises(DamagedFile, match="more than 31 values"):
        read_json(tmp_path / "y", RunsFile, limit_bytes=1000)


def test_a_document_that_is_no_object_has_no_place_to_name():
    with pytest.raises(DamagedFile, match=r"^input should be an object$"):
        decode(b"[1]", RunsFile)
    with pytest.raises(OtherVersion, match="schema_version None"):
        decode(b"[1]", RunsFile, version=1)


def test_types_are_made_ready_once(monkeypatch):
    monkeypatch.setattr(files, "_ADAPTERS", {})
    assert files._adapter(RunsFile) is files._adapter(RunsFile)
