import json
import os
import socket

import pytest

from benchrunner.core import scrub, text


@pytest.fixture(autouse=True)
def named_host(monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: "gpu-node7.cluster.example")
    text.forget_hosts()
    yield
    text.forget_hosts()


def test_files_are_scrubbed_in_place_and_others_not_touched(tmp_path):
    named, other = tmp_path / "rank0.out", tmp_path / "rank1.out"
    named.write_bytes(b"\xff on gpu-node7\n")
    other.write_bytes(b"\xff\x00 binary stays\n")
    before = other.stat().st_ino
    scrub.scrub_files([named, other])
    assert named.read_bytes() == b"\xff on <host>\n"
    assert other.read_bytes() == b"\xff\x00 binary stays\n" and other.stat().st_ino == before


def test_a_log_of_many_pieces_is_scrubbed_in_each(tmp_path, monkeypatch):
    monkeypatch.setattr(scrub, "CHUNK_BYTES", 64)
    log = tmp_path / "agent.log"
    log.write_text("x" * 200 + "\nat gpu-node7\n" + "y" * 200 + "\n")
    scrub.scrub_files([log])
    assert log.read_text() == "x" * 200 + "\nat <host>\n" + "y" * 200 + "\n"


def test_what_is_no_file_is_left_alone(tmp_path):
    os.mkfifo(tmp_path / "rank0.err")
    (tmp_path / "rank1.err").symlink_to("/dev/zero")
    (tmp_path / "rank2").mkdir()
    scrub.scrub_files([*tmp_path.iterdir(), tmp_path / "agent.log"])
    assert len(list(tmp_path.iterdir())) == 3


def test_secrets_are_redacted_in_every_kind_of_file(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_SIGNING_KEY", "12345678")
    monkeypatch.setenv("GITHUB_PAT", "teardown")
    log, rank = tmp_path / "rank0.err", tmp_path / "rank0.json"
    log.write_text("key=12345678\n")
    rank.write_text('{"phase": "teardown", "error": {"message": "12345678: teardown", "at": 0.123456789}}')
    scrub.scrub_files([log, rank])
    assert log.read_text() == "key=<secret>\n"
    said = {"message": "<secret>: <secret>", "at": 0.123456789}
    assert json.loads(rank.read_text()) == {"phase": "teardown", "error": said}, "still a rank file"


def test_a_host_called_like_a_phase_damages_no_rank_file(tmp_path, monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: "build")
    text.forget_hosts()
    rank = tmp_path / "rank0.json"
    rank.write_text('{"phase": "build", "error": {"message": "no route to build"}}')
    scrub.scrub_files([rank])
    assert json.loads(rank.read_text()) == {"phase": "build", "error": {"message": "no route to <host>"}}


def test_lists_and_documents_that_are_no_rank_files_are_scrubbed_too(tmp_path, monkeypatch):
    monkeypatch.setenv("GITHUB_PAT", "hunter22")
    rank, other, broken = (tmp_path / f"{name}.json" for name in ("rank0", "list", "broken"))
    rank.write_text('{"error": {"lines": ["a hunter22", ["hunter22", 1]]}}')
    other.write_text('["hunter22"]')
    broken.write_text('{"hunter22')
    scrub.scrub_files([rank, other, broken])
    assert json.loads(rank.read_text()) == {"error": {"lines": ["a <secret>", ["<secret>", 1]]}}
    assert broken.read_text() == '{"<secret>'
    assert "hunter22" not in other.read_text()
