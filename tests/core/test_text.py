import socket

import pytest

from benchrunner.core.text import _host_pattern, first_line, plain, scrub_hosts, single_line, visible


@pytest.fixture
def named_host(monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: "gpu-node7.cluster.example")
    _host_pattern.cache_clear()
    yield
    _host_pattern.cache_clear()


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
    assert scrub_hosts(log) == clean


@pytest.mark.parametrize("name", ["localhost", ""])
def test_a_host_without_a_name_of_its_own_is_nowhere_mentioned(monkeypatch, name):
    monkeypatch.setattr(socket, "gethostname", lambda: name)
    _host_pattern.cache_clear()
    assert scrub_hosts("on localhost:29500") == "on localhost:29500"
    _host_pattern.cache_clear()


def test_plain_text_has_no_escapes_and_no_controls():
    assert plain("\x1b[1;31mred\x1b[0m\r\n\ttab\x07\x1b]0;title\x07!") == "red\n\ttab!"


@pytest.mark.parametrize(
    ("several", "line"),
    [
        ("\n\n  first   line \nsecond", "first line"),
        ("backend='inductor' raised:\nTypeError: x", "backend='inductor' raised: TypeError: x"),
        ("raised:", "raised:"),
        ("", ""),
    ],
)
def test_the_first_line_that_says_something(several, line):
    assert first_line(several) == line


def test_a_long_first_line_is_cut():
    assert first_line("x" * 50, 50) == "x" * 50
    assert first_line("x" * 51, 50) == "x" * 49 + "…"
    assert len(first_line("x" * 1000)) == 240


def test_a_single_line_has_nothing_that_breaks_or_reorders_it():
    assert single_line(" a\nb\r\n\tc\x1b[31md\u202ee\u2028f  g ") == "a b c d e f g"
    assert single_line("unassigned \ud7fc, half a pair \ud800, titled \x1b]0;x\x07 é 漢") == (
        "unassigned , half a pair , titled é 漢"
    )


def test_what_is_not_seen_is_not_shown():
    assert visible("a\u202eb\u200fc\x9b31md\ne\tf") == "abc31md\ne\tf"
