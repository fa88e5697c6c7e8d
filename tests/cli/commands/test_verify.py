"""`bench lock` and `bench verify`: what a sweep gave is what is expected from now on."""

import json

import pytest

from benchrunner.cli.gate_files import SUMMARY

LOCK = ("--lock", "my.lock")


@pytest.fixture
def locked(bench, sweep):
    assert bench("lock", sweep, *LOCK)[0] == 0
    return sweep


@pytest.mark.parametrize("command", ["lock", "verify"])
@pytest.mark.parametrize(
    ("words", "message"), [([], "needs the directory"), (["nowhere"], "no such directory"), (["."], "not a sweep")]
)
def test_what_is_no_sweep_is_refused(refused, command, words, message):
    refused([command, *words], message)


def test_what_was_locked_is_as_expected(bench, locked):
    code, out, _, _ = bench("verify", locked, *LOCK)
    assert (code, out.splitlines()[-1].startswith("PASS: 2 of 2 cells")) == (0, True)


def test_a_lock_that_is_not_there_is_an_error(bench, sweep):
    code, _, err, _ = bench("verify", sweep, *LOCK)
    assert (code, "my.lock: no such file; bench lock DIR writes it" in err) == (1, True)


@pytest.mark.parametrize("command", ["lock", "verify"])
def test_a_matrix_of_the_command_line_names_its_lock(bench, sweep, command):
    code, out, err, files = bench(command, sweep)
    assert (code, out) == (1, "") and f"bench: --lock: {sweep} is of the command line" in err
    assert "cli.lock" not in files


def change(tmp_path, before="skipped.predicted_oom", after="skipped.excluded"):
    lock = tmp_path / "my.lock"
    lock.write_text(lock.read_text().replace(before, after, 1))


def test_another_verdict_is_exit_3_in_every_form(bench, locked, tmp_path, monkeypatch):
    change(tmp_path)
    monkeypatch.setenv(SUMMARY, str(tmp_path / "summary.md"))
    code, out, _, _ = bench("verify", locked, *LOCK, "--json", "--junit", "out/x.xml", "--markdown", "out/x.md")
    assert (code, json.loads(out)["verdict"]) == (3, "FAIL")
    assert "<failure" in (tmp_path / "out" / "x.xml").read_text()
    assert "another reason" in (tmp_path / "out" / "x.md").read_text()
    assert "another reason" in (tmp_path / "summary.md").read_text()


def test_one_command_updates_the_lock_and_shows_what_changed(bench, locked, tmp_path):
    change(tmp_path)
    code, out, _, _ = bench("verify", locked, *LOCK, "--update")
    assert (code, out.splitlines()[-1]) == (0, "my.lock")
    assert sum(line.startswith("+  - {cell_id") for line in out.splitlines()) == 1
    assert bench("verify", locked, *LOCK)[0] == 0


def test_a_lock_lies_where_it_is_told_and_doubts_are_said(bench, sweep, monkeypatch):
    monkeypatch.setattr("benchrunner.compare.lock_file.doubts", lambda side: ["odd", "even"])
    code, out, err, files = bench("lock", sweep, "--lock", "mine.lock")
    assert (code, out, err) == (0, "2 cells, all new\nmine.lock\n", "note: odd\nnote: even\n")
    assert "mine.lock" in files and "my.lock" not in files
    code, out, _, _ = bench("verify", sweep, "--lock", "mine.lock")
    assert code == 0 and out.endswith("are as mine.lock expects\n")


def test_a_lock_that_cannot_be_written_is_one_error(bench, sweep):
    code, out, err, _ = bench("lock", sweep, "--lock", "a" * 300)
    assert (code, out) == (1, "") and err == f"bench: {'a' * 300}: it cannot be read (File name too long)\n"


def test_a_word_more_is_refused(refused):
    refused(["lock", ".", "."], "lock needs the directory of one sweep, e.g. bench lock outputs/latest$")
    refused(["verify", ".", "."], "verify needs the directory of one sweep, e.g. bench verify outputs/latest$")


def test_locking_again_shows_that_nothing_changed(bench, locked):
    assert bench("lock", locked, *LOCK)[1].splitlines() == ["2 cells, as before", "my.lock"]
