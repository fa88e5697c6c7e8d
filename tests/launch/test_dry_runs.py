"""Dry runs as processes, by a stand-in for the worker: order, equal questions, the cache, and ends that come early."""

import subprocess

import pytest

from benchrunner.launch import dry_runs

ANSWERS = """
import json, sys
for line in sys.stdin:
    question = json.loads(line)
    if question["size"] == 13:
        sys.exit("no luck")
    sys.stdout.buffer.write(b"a library says \\xff\\n")
    sys.stdout.buffer.flush()
    print(json.dumps({"peak_memory_bytes": 2 * question["size"]}), flush=True)
"""


@pytest.fixture
def ask(tmp_path, monkeypatch):
    """Ask for sizes; returns the answers and what was told."""
    (tmp_path / "stand_in.py").write_text(ANSWERS)
    monkeypatch.setattr(dry_runs, "MODULE", "stand_in")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(dry_runs.os, "cpu_count", lambda: 2)

    def ask(*sizes):
        told = []
        answers = dry_runs.dry_run([{"size": size} for size in sizes], "2.11.0", lambda *counts: told.append(counts))
        return answers, told

    return ask


def test_answers_are_in_order_and_equal_questions_asked_once(ask):
    answers, told = ask(1, 2, 1, 3)
    assert [one["peak_memory_bytes"] for one in answers] == [2, 4, 2, 6]
    assert told[-1] == (3, 3)


def test_a_second_plan_asks_for_nothing(ask):
    ask(1, 2)
    assert ask(2, 1) == ([{"peak_memory_bytes": 4}, {"peak_memory_bytes": 2}], [])


def test_a_process_that_ends_early_refuses_what_it_did_not_come_to_and_keeps_none_of_that(ask):
    answers, _ = ask(13)
    assert answers == [{"refused": "the dry run ended early: no luck"}]
    assert not list(dry_runs.cache_dir().glob("*.json"))


def test_of_a_share_that_ends_early_the_answers_before_it_are_kept(ask, monkeypatch):
    monkeypatch.setattr(dry_runs.os, "cpu_count", lambda: None)
    answers, told = ask(5, 13, 6)
    refused = {"refused": "the dry run ended early: no luck"}
    assert answers == [{"peak_memory_bytes": 10}, refused, refused] and told == [(3, 3)]
    assert len(list(dry_runs.cache_dir().glob("*.json"))) == 1


def test_another_torch_is_another_question(ask):
    ask(1)
    told = []
    dry_runs.dry_run([{"size": 1}], "2.12.0", lambda *counts: told.append(counts))
    dry_runs.dry_run([{"size": 1}], "2.12.0", lambda *counts: told.append(counts))
    assert told == [(1, 1)]


def test_answers_that_cannot_be_kept_are_given(ask, tmp_path):
    (tmp_path / "cache").write_text("a file in its place")
    assert ask(4)[0] == [{"peak_memory_bytes": 8}]


def test_a_process_without_a_word_is_named_by_its_code(tmp_path, ask):
    (tmp_path / "stand_in.py").write_text("import sys; sys.exit(3)")
    assert ask(1)[0] == [{"refused": "the dry run ended early: exit code 3"}]


def test_a_process_that_cannot_be_started_or_does_not_end_refuses(ask, monkeypatch):
    monkeypatch.setattr(dry_runs.sys, "executable", "/nowhere/python")
    assert "No such file" in ask(1)[0][0]["refused"]


def test_a_dry_run_sees_no_gpu_and_has_one_thread(tmp_path, ask, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    text = "import json, os; print(json.dumps({n: os.environ[n] for n in ('CUDA_VISIBLE_DEVICES', 'OMP_NUM_THREADS')}))"
    (tmp_path / "stand_in.py").write_text(text)
    assert ask(1)[0] == [{"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}]


def test_answers_are_kept_in_the_home_of_a_user(monkeypatch, tmp_path):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(dry_runs.Path, "home", staticmethod(lambda: tmp_path))
    assert dry_runs.cache_dir() == tmp_path / ".cache" / "benchrunner" / "dry-runs"


def test_what_was_answered_before_the_time_was_up_counts(ask, monkeypatch):
    def run(command, timeout, **kwargs):
        raise subprocess.TimeoutExpired(command, timeout, output=b'{"peak_memory_bytes": 7}\n')

    monkeypatch.setattr(dry_runs.os, "cpu_count", lambda: 1)
    monkeypatch.setattr(dry_runs.subprocess, "run", run)
    answers, _ = ask(1, 2)
    late = f"the dry run ended early: no answer within {2 * dry_runs.TIMEOUT_S:.0f} s"
    assert answers == [{"peak_memory_bytes": 7}, {"refused": late}]


@pytest.mark.parametrize(("output", "text"), [(None, ""), (b"a\xff", "a\ufffd"), ("a", "a")])
def test_what_was_written_is_text(output, text):
    assert dry_runs._text(output) == text


def test_a_damaged_answer_is_refused_by_name(ask):
    ask(1)
    [kept] = dry_runs.cache_dir().glob("*.json")
    kept.write_text("{")
    assert "cannot be read" in ask(1)[0][0]["refused"]
