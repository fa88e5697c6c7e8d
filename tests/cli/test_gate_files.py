"""Where findings go: a file and its folder, the summary of a job; and what is said where they cannot."""

from argparse import Namespace

import pytest

from benchrunner.cli.gate_files import SUMMARY, add_to_job_summary, show_findings, write_file
from benchrunner.core.errors import UsageError


def test_a_file_is_written_with_its_folder(tmp_path):
    for text in ("first", "second"):
        write_file(tmp_path / "deep" / "deeper" / "file", text)
    assert (tmp_path / "deep" / "deeper" / "file").read_text() == "second"


def test_what_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError) as refused:
        write_file(tmp_path / "file" / "below", "text")
    assert str(refused.value) == f"{tmp_path}/file/below: cannot be written: File exists"


def test_a_summary_is_added_to_where_there_is_one(tmp_path, monkeypatch):
    monkeypatch.delenv(SUMMARY, raising=False)
    add_to_job_summary("nowhere")
    monkeypatch.setenv(SUMMARY, str(tmp_path / "summary.md"))
    add_to_job_summary("one ")
    add_to_job_summary("two")
    assert (tmp_path / "summary.md").read_text() == "one two"


def test_a_summary_that_cannot_be_written_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(SUMMARY, str(tmp_path / "nowhere" / "summary.md"))
    nothing = Namespace(json=False, markdown=None, junit=None)
    with pytest.raises(UsageError) as refused:
        show_findings(nothing, text="text", markdown="markdown", document={}, junit=str)
    why = f"{SUMMARY}={tmp_path}/nowhere/summary.md: cannot be written: No such file or directory"
    assert str(refused.value) == why and capsys.readouterr().out == "text\n"
