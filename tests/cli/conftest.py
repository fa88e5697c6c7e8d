"""`bench` as the tests of the command line call it."""

import re

import pytest

from benchrunner.cli.main import main


@pytest.fixture
def bench(tmp_path, monkeypatch, capsys):
    """Run a command in an empty folder: (exit code, stdout, stderr, files left)."""
    monkeypatch.chdir(tmp_path)

    def call(*words):
        code = main(words)
        out, err = capsys.readouterr()
        return code, out, err, sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))

    return call


@pytest.fixture
def refused(bench):
    """Hold that words are refused with one message, which fits a pattern, and leave nothing."""

    def check(words, message):
        code, out, err, files = bench(*words)
        assert (code, out, files) == (1, "", [])
        assert re.search(message, err)
        assert err.startswith("bench: ")
        assert err.count("\n") == 1

    return check
