import socket

import pytest

from benchrunner.core import text


@pytest.fixture
def named_host(monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: "gpu-node7.cluster.example")
    text._host_pattern.cache_clear()
    yield
    text._host_pattern.cache_clear()


def test_secrets_do_not_pass():
    kept = {"PATH": "/bin", "NCCL_DEBUG": "INFO", "OMP_NUM_THREADS": "4"}
    secret = ["HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "MY_PASSWORD", "GOOGLE_CREDENTIALS", "OPENAI_API_KEY", "db_passwd"]
    environ = (
        kept | dict.fromkeys(secret, "x") | {"HOSTNAME": "h", "PIP_INDEX_URL": "https://me:pw@index.example/simple"}
    )
    assert text.scrub_environment(environ) == kept


@pytest.mark.parametrize(
    ("log", "clean"),
    [
        ("host : gpu-node7", "host : <host>"),
        ("at gpu-node7.cluster.example:29500", "at <host>:29500"),
        ("at GPU-NODE7.local.", "at <host>."),
        ("gpu-node77 and my-gpu-node7 are others", "gpu-node77 and my-gpu-node7 are others"),
    ],
)
def test_hosts_are_replaced(named_host, log, clean):
    assert text.scrub_hosts(log) == clean


def test_files_are_scrubbed_in_place_and_others_not_touched(named_host, tmp_path):
    named, other = tmp_path / "rank0.out", tmp_path / "rank1.out"
    named.write_bytes(b"on gpu-node7\n")
    other.write_bytes(b"\xff\x00 binary stays\n")
    text.scrub_files([named, other])
    assert named.read_bytes() == b"on <host>\n"
    assert other.read_bytes() == b"\xff\x00 binary stays\n"


def test_plain_text_has_no_escapes_and_no_controls():
    assert text.plain("\x1b[1;31mred\x1b[0m\r\n\ttab\x07\x1b]0;title\x07!") == "red\n\ttab!"


@pytest.mark.parametrize(
    ("several", "line"),
    [
        ("\n\n  first   line \nsecond", "first line"),
        ("backend='inductor' raised:\nTypeError: x", "backend='inductor' raised: TypeError: x"),
        ("", ""),
    ],
)
def test_the_first_line_that_says_something(several, line):
    assert text.first_line(several) == line
    assert len(text.first_line("x" * 1000, 50)) == 50
