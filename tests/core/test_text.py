import socket

import pytest

from benchrunner.core.text import (
    escape_markdown,
    first_line,
    forget_hosts,
    indented_line,
    may_name_host,
    plain,
    scrub_hosts,
    single_line,
    visible,
    xml_text,
)


@pytest.fixture
def named_host(monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: "gpu-node7.cluster.example")
    forget_hosts()
    yield
    forget_hosts()


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
    forget_hosts()
    assert scrub_hosts("on localhost:29500") == "on localhost:29500"
    forget_hosts()


def test_the_other_nodes_of_an_allocation_are_replaced_as_well(named_host, monkeypatch):
    nodes = {"SLURM_JOB_NODELIST": "gpu-node[6-7],Big01-ib", "SLURM_SUBMIT_HOST": "login.cluster.example"}
    for name, value in nodes.items():
        monkeypatch.setenv(name, value)
    forget_hosts()
    assert scrub_hosts("srun: error: gpu-node6: task 0") == "srun: error: <host>: task 0"
    assert scrub_hosts("slurmstepd-gpu-node7: error") == "slurmstepd-<host>: error"
    assert scrub_hosts("big01-ib.local:29500 from login, gpu-node8") == "<host>:29500 from <host>, gpu-node8"
    assert may_name_host("at GPU-NODE6") and not may_name_host("at gpu-node8")


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


def test_the_indentation_of_a_traceback_is_kept():
    assert indented_line("    raise  X\x1b[0m\n") == "    raise X"
    assert (indented_line("  \n"), indented_line(" " * 99 + "x")) == ("", " " * 40 + "x")


def test_what_is_not_seen_is_not_shown():
    assert visible("a\u202eb\u200fc\x9b31md\ne\tf") == "abc31md\ne\tf"


def test_text_in_xml_holds_nothing_that_xml_cannot():
    assert xml_text("a\x00b\ud800c\td\U0001f600") == "a\ufffdb\ufffdc\td\U0001f600"


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("a|b *c* `d` [e](f) ~g~ $h$ i\\j", r"a\|b \*c\* \`d\` \[e\](f) \~g\~ \$h\$ i\\j"),
        ("_private and snake_case_name", r"\_private and snake_case_name"),
        ("<b> & more\nlines", "&lt;b&gt; &amp; more lines"),
        ("see https://x.example and http://y", "see https&#58;//x.example and http&#58;//y"),
    ],
)
def test_markdown_shows_a_text_as_it_is(text, escaped):
    assert escape_markdown(text) == escaped


@pytest.mark.parametrize("name", ["peer", "Device.cluster.example"])
def test_a_host_that_is_called_like_a_word_of_the_errors_is_hidden_with_its_domain_alone(monkeypatch, name):
    monkeypatch.setattr(socket, "gethostname", lambda: name)
    forget_hosts()
    said = "Connection closed by peer. No space left on device\nat peer.cluster.example, device.cluster.example"
    bare, domain = scrub_hosts(said).splitlines()
    forget_hosts()
    assert bare == said.splitlines()[0] and domain.count("<host>") == 1
