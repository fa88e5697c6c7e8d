"""What becomes of a command whose streams, folder or home are not what one expects."""

import io
import os
import subprocess
import sys

import pytest

from benchrunner.cli import streams
from benchrunner.cli.streams import LastingStream, lasting_streams

PLAN = f"{sys.executable} -m benchrunner plan"


def shell(line, cwd, **env):
    done = subprocess.run(["bash", "-c", line], cwd=cwd, capture_output=True, text=True, env=os.environ | env)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        (f"{PLAN} <&- >&-", 0, ""),
        (f"{PLAN} 2>&-", 0, ""),
        (f"{PLAN} model=nothing 2>&-", 1, ""),
        (f"{PLAN} > /dev/full", 1, "bench: stdout cannot be written: No space left on device\n"),
        (f"{PLAN} > /dev/full 2> /dev/full", 1, ""),
        ("mkdir gone; cd gone; rmdir ../gone; " + PLAN, 1, "bench: the working directory is no longer there; "),
    ],
)
def test_streams_that_cannot_be_written_and_a_folder_that_has_gone(tmp_path, line, code, said):
    found, _, err = shell(line, tmp_path)
    assert found == code and err.startswith(said) and "Traceback" not in err and bool(said) == bool(err)


def test_a_locale_without_the_characters_of_the_tables(tmp_path):
    code, out, err = shell(PLAN, tmp_path, PYTHONIOENCODING="ascii")
    assert (code, err) == (0, "") and r"\xd7" in out


def test_the_next_file_does_not_become_stdout(tmp_path):
    script = (
        "import os; from benchrunner.cli.streams import lasting_streams\n"
        "with lasting_streams(): os._exit(os.open('x', os.O_CREAT | os.O_WRONLY))"
    )
    code, _, _ = shell(f'{sys.executable} -c "{script}" <&- >&- 2>&-', tmp_path)
    assert code > 2


class Breaking:
    """A stream on which writing begins to fail."""

    def __init__(self):
        self.text, self.is_broken = "", False

    def write(self, text):
        if self.is_broken:
            raise OSError(5, "Input/output error")
        self.text += text

    def flush(self):
        self.write("")

    def fileno(self):
        raise ValueError("no descriptor")


def test_a_stream_goes_silent_at_the_first_thing_that_cannot_be_written():
    under = Breaking()
    stream = LastingStream(under)
    print("one", file=stream)
    under.is_broken = True
    print("two", file=stream, flush=True)
    under.is_broken = False
    print("three", file=stream, flush=True)
    assert under.text == "one\n" and stream.error.strerror == "Input/output error"


def test_a_stream_that_was_silenced_stays_so():
    under = Breaking()
    stream = LastingStream(under)
    under.is_broken = True
    assert stream.write("one") == 3 and stream.is_broken
    under.is_broken = False
    stream.write("two")
    assert under.text == "" and stream.error is not None


def test_what_cannot_be_flushed_silences_too():
    under = Breaking()
    stream = LastingStream(under)
    under.is_broken = True
    stream.flush()
    assert stream.error.strerror == "Input/output error"


class Fixed:
    """A stream whose characters nobody can change."""

    def __init__(self, error):
        self.error = error

    def reconfigure(self, *, errors):
        raise self.error


@pytest.mark.parametrize("stream", [Breaking(), Fixed(ValueError()), Fixed(OSError())])
def test_a_stream_that_is_none_of_pythons_is_taken_as_it_is(stream):
    assert streams._encodable(stream) is stream


def test_characters_that_a_stream_lacks_are_written_as_numbers():
    under = io.BytesIO()
    stream = streams._encodable(io.TextIOWrapper(under, encoding="ascii"))
    stream.write("2 × 3")
    stream.flush()
    assert under.getvalue() == b"2 \\xd7 3"


def test_the_streams_of_before_come_back():
    before = sys.stdout, sys.stderr
    with lasting_streams() as out:
        assert sys.stdout is out and isinstance(sys.stderr, streams.LastingStream)
    assert (sys.stdout, sys.stderr) == before


@pytest.mark.parametrize("text", ["a\nb", "a\x1b[31m", "a\u202eb"])
def test_a_folder_that_no_line_can_name_is_refused(refused, text):
    refused([f"out_dir='{text}'"], "out_dir: .*cannot be printed")


def test_a_descriptor_leads_nowhere_and_no_other_stays_open(tmp_path):
    descriptor = os.open(tmp_path / "file", os.O_CREAT | os.O_RDWR)
    before = sorted(os.listdir("/proc/self/fd"))
    streams._open_nowhere(descriptor)
    assert os.write(descriptor, b"x") == 1 and os.read(descriptor, 1) == b""
    assert os.readlink(f"/proc/self/fd/{descriptor}") == os.devnull and (tmp_path / "file").read_text() == ""
    assert sorted(os.listdir("/proc/self/fd")) == before
    os.close(descriptor)


def test_a_descriptor_that_was_free_is_what_is_opened(monkeypatch):
    reader, writer = os.pipe()
    monkeypatch.setattr(streams.os, "open", lambda path, flags: writer)
    streams._open_nowhere(writer)
    os.close(writer)
    os.close(reader)


def test_without_a_stream_there_is_one_that_goes_nowhere():
    with streams._nowhere() as stream:
        assert stream.name == os.devnull and stream.encoding == "utf-8" and stream.write("ß") == 1
