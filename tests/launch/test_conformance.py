import re
import subprocess
import sys
from copy import deepcopy

import pytest

from benchrunner.core.errors import UsageError
from benchrunner.core.schema import LauncherConfig
from benchrunner.launch import conformance, launchers, local_allocator
from benchrunner.launch.allocation import JobState, Request
from benchrunner.launch.conformance import CHECKS, main
from benchrunner.launch.local_allocator import LocalAllocator


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
def test_processes_of_this_machine_are_a_launcher(tmp_path, check):
    check(LocalAllocator(), tmp_path)


class Forgetful(LocalAllocator):
    """Calls everything that has ended a success."""

    def poll(self, sweep, jobs):
        from dataclasses import replace

        found = super().poll(sweep, jobs)
        return {job: replace(one, end="completed" if one.end else None) for job, one in found.items()}


def test_the_checks_see_a_launcher_that_lies(tmp_path):
    with pytest.raises(AssertionError, match="in place of failed"):
        CHECKS["tells_a_failure"](Forgetful(), tmp_path)


class Scripted:
    """Jobs that have ended when they are asked about: as they should, but for what a test says."""

    def __init__(self, end="completed", log="", later=None, ids="789", of_none=(), phase="ended"):
        self._end, self._log, self._later, self._ids, self._of_none = end, log, later or end, list(ids), of_none
        self._phase = phase

    def submit(self, sweep, request):
        return self._ids.pop(0)

    def poll(self, sweep, jobs):
        return {job: JobState(phase=self._phase, end=self._end) for job in jobs or self._of_none}

    def cancel(self, sweep, jobs):
        self._end = self._later

    def logs(self, sweep, job):
        return self._log


@pytest.mark.parametrize(
    ("check", "launcher", "said"),
    [
        ("runs_the_command", Scripted("failed"), "it ended as failed in place of completed"),
        ("runs_the_command", Scripted(), "the command was told 'nothing'"),
        ("tells_a_failure", Scripted(), "it ended as completed in place of failed"),
        ("tells_a_failure", Scripted("failed", "on stdout"), "the log says 'on stdout'"),
        ("tells_a_failure", Scripted("failed", "on stderr"), "the log says 'on stderr'"),
        ("tells_a_failure", Scripted("failed", "on stdout on stderr"), None),
        ("answers_about_several", Scripted(), None),
        ("answers_about_several", Scripted(later="unknown"), None),
        ("answers_about_several", Scripted(later="cancelled"), "an end has changed"),
        ("answers_about_several", Scripted(ids="787"), r"ids are not unique: \['7', '8', '7'\]"),
        ("answers_about_several", Scripted(of_none="7"), "of no job there is something to say"),
    ],
)
def test_the_checks_say_what_a_launcher_does_otherwise(tmp_path, check, launcher, said):
    (tmp_path / "out").write_text("nothing")
    if said is None:
        CHECKS[check](deepcopy(launcher), tmp_path)
    else:
        with pytest.raises(AssertionError, match=f"^{said}$"):
            CHECKS[check](deepcopy(launcher), tmp_path)


@pytest.mark.parametrize(
    ("check", "launcher", "left", "said"),
    [
        ("runs_the_command", Scripted(phase="running"), [], "job 7 is not ended after 0 s"),
        ("tells_a_failure", Scripted(phase="running"), [], "job 7 is not ended after 0 s"),
        ("asks_before_it_kills", Scripted(phase="waiting"), ["begun"], "job 7 is not running after 0 s"),
        ("asks_before_it_kills", Scripted(phase="running"), ["begun"], "job 7 is not ended after 0 s"),
        ("asks_before_it_kills", Scripted("cancelled"), ["end"], "the command has not begun after 0 s"),
        ("asks_before_it_kills", Scripted("failed"), ["begun"], "it ended as failed in place of cancelled"),
        ("asks_before_it_kills", Scripted("cancelled"), ["begun"], "the command did not end in order after 0 s"),
        ("asks_before_it_kills", Scripted("cancelled"), ["begun", "end"], None),
        ("answers_about_several", Scripted(phase="running"), [], "three short jobs have not ended after 0 s"),
    ],
)
def test_what_a_launcher_has_not_done_in_time_is_named(tmp_path, monkeypatch, check, launcher, left, said):
    monkeypatch.setattr(conformance, "ANSWER_S", 0.0)
    for name in left:
        (tmp_path / name).touch()
    if said is None:
        CHECKS[check](deepcopy(launcher), tmp_path)
    else:
        with pytest.raises(AssertionError, match=f"^{said}$"):
            CHECKS[check](deepcopy(launcher), tmp_path)


def test_a_job_of_which_nothing_can_be_said_is_asked_about_again(tmp_path, monkeypatch):
    asked, launcher = [], Scripted("failed", "on stdout on stderr")

    class Silent:
        def poll(self, sweep, jobs):
            asked.append(jobs)
            return launcher.poll(sweep, jobs) if len(asked) == 3 else {}

        submit, logs = launcher.submit, launcher.logs

    monkeypatch.setattr(conformance.time, "sleep", lambda seconds: None)
    CHECKS["tells_a_failure"](Silent(), tmp_path)
    assert asked == [["7"]] * 3


def test_checks_ask_for_minutes_and_for_names_that_differ(tmp_path, monkeypatch):
    asked = []

    class Recorded(Scripted):
        def submit(self, sweep, request):
            asked.append(request)
            return super().submit(sweep, request)

        def poll(self, sweep, jobs):
            assert sweep == tmp_path
            ends = ("completed", "unknown", "completed")
            return {job: JobState(phase="ended", end=end) for job, end in zip(jobs, ends, strict=False)}

    monkeypatch.setattr(conformance, "ANSWER_S", 0.0)
    CHECKS["answers_about_several"](Recorded(), tmp_path)
    with pytest.raises(AssertionError):
        CHECKS["tells_a_failure"](Recorded(), tmp_path)
    *short, one = asked
    assert short == [
        Request(name=f"bench-check-{number}", command=[sys.executable, "-c", "pass"], time_min=5) for number in range(3)
    ]
    assert one == Request(name="bench-check", command=one.command, time_min=5)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "NAME"),
        (["local"], "no cluster's"),
        (["partition=x"], "NAME"),
        (["slurm", "partitoin=x"], "launcher.partitoin: no such key"),
        (["slurm", "/no/where"], "/no/where is no folder"),
        (["slurm", "exclusive=maybe"], "launcher.exclusive: it does not take 'maybe'"),
        (["slurm", "cpus_per_task=a"], "launcher.cpus_per_task: it does not take 'a'"),
        (["slurm", "sbatch={"], "launcher.sbatch: it does not take '{'"),
        (["slurm", "setup=module load x"], "launcher.setup: it does not take 'module load x'"),
        (["lsf"], "no package brings a launcher named 'lsf'"),
    ],
)
def test_a_wrong_word_is_one_line(words, said):
    with pytest.raises(SystemExit, match=said):
        main(words)


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """What `main` asks, of which launcher and where, when there are two checks of which one fails."""
    asked, launcher = [], LocalAllocator()

    def passes(allocator, sweep):
        assert allocator is launcher and sweep.parent == tmp_path and sweep.is_dir()

    def fails(allocator, sweep):
        asked.append(sweep.name)
        raise AssertionError("it lies")

    monkeypatch.setattr(conformance, "CHECKS", {"passes": passes, "fails": fails})
    monkeypatch.setattr(conformance, "allocator_for", lambda config: asked.append(config) or launcher)
    return asked


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("slurm", {"name": "slurm"}), ("detached", {"name": "detached"}), ("pbs", {"name": "plugin", "plugin": "pbs"}),
    ],
)  # fmt: skip
def test_every_check_is_made_in_a_folder_of_its_own_and_those_that_fail_are_counted(
    tmp_path, asked, capsys, name, config
):
    assert main([name, str(tmp_path), "partition=a=b"]) == 1
    assert asked[0] == LauncherConfig(**config, partition="a=b")
    assert re.fullmatch("bench-conformance-.+", asked[1]) and not list(tmp_path.iterdir())
    assert re.sub(" +", " ", capsys.readouterr().out) == "passes ok\nfails FAILED: it lies\n"


def test_a_key_has_the_type_of_its_configuration(tmp_path, asked):
    words = ["exclusive=false", "cpus_per_task=4", "constraint=[a|b]", "partition=1", "setup=[module load x, y]"]
    main(["slurm", str(tmp_path), *words, "sbatch={comment: a b, begin: 2026-11-30}"])
    assert asked[0] == LauncherConfig(
        name="slurm", cpus_per_task=4, constraint="[a|b]", partition="1", setup=["module load x", "y"],
        sbatch={"comment": "a b", "begin": "2026-11-30"},
    )  # fmt: skip


def test_a_launcher_of_another_package_is_found_by_its_entry_point(monkeypatch):
    called = []

    class Point:
        name = "pbs"

        def load(self):
            return lambda config: called.append(config) or LocalAllocator()

    monkeypatch.setattr(launchers, "entry_points", lambda group: [Point()] if group == launchers.GROUP else [])
    found = launchers.allocator_for(LauncherConfig(name="plugin", plugin="pbs"))
    assert isinstance(found, LocalAllocator) and called == [LauncherConfig(name="plugin", plugin="pbs")]
    with pytest.raises(UsageError, match=r"launcher.plugin: no package brings .*'lsf'; installed: pbs"):
        launchers.allocator_for(LauncherConfig(name="plugin", plugin="lsf"))
    monkeypatch.setattr(launchers, "entry_points", lambda group: [])
    with pytest.raises(UsageError, match="'lsf'; none is installed"):
        launchers.allocator_for(LauncherConfig(name="plugin", plugin="lsf"))


def test_a_process_outlives_who_starts_it_and_reads_nothing(tmp_path, monkeypatch):
    called = []
    monkeypatch.setattr(
        local_allocator.subprocess, "Popen", lambda command, **how: called.append((command, how)) or Started()
    )
    request = Request(name="bench", command=["python", "-m", "a b"])
    assert LocalAllocator().submit(tmp_path / "sweep", request) == "12"
    command = ["bash", "-c", local_allocator.SCRIPT, str(tmp_path / "sweep" / "allocations"), "python", "-m", "a b"]
    assert called == [(command, {"stdin": subprocess.DEVNULL, "start_new_session": True})]


class Started:
    pid = 12


@pytest.mark.parametrize(("error", "is_there"), [(None, True), (ProcessLookupError, False)])
def test_whether_a_process_is_there_is_asked_without_a_signal(monkeypatch, error, is_there):
    asked = []

    def kill(*how):
        asked.append(how)
        if error:
            raise error

    monkeypatch.setattr(local_allocator.os, "kill", kill)
    assert local_allocator._is_there(1) is is_there and asked == [(1, 0)]


@pytest.mark.parametrize("is_there", [True, False])
@pytest.mark.parametrize(
    ("code", "end"), [("0\n", "completed"), ("143\n", "cancelled"), ("3\n", "failed"), ("", "unknown"), (None, None)]
)
def test_a_process_has_ended_once_it_left_its_code_or_is_gone(tmp_path, monkeypatch, is_there, code, end):
    monkeypatch.setattr(local_allocator, "_is_there", {7: is_there}.__getitem__)
    (tmp_path / "allocations").mkdir()
    if code is not None:
        (tmp_path / "allocations" / "7.code").write_text(code)
    ended = JobState(phase="ended", end=end or "unknown")
    expected = JobState(phase="running") if is_there and code is None else ended
    assert LocalAllocator().poll(tmp_path, ["7"]) == {"7": expected}


def test_the_log_of_a_process_is_text_and_empty_where_there_is_none(tmp_path):
    assert LocalAllocator().logs(tmp_path, "7") == ""
    (tmp_path / "allocations").mkdir()
    (tmp_path / "allocations" / "7.log").write_bytes(b"said \xff")
    assert LocalAllocator().logs(tmp_path, "7") == "said \ufffd"
