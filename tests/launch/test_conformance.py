import pytest

from benchrunner.core.errors import UsageError
from benchrunner.core.schema import LauncherConfig
from benchrunner.launch import launchers
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


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "NAME"),
        (["local"], "no cluster's"),
        (["slurm", "partitoin=x"], "launcher.partitoin: no such key"),
        (["slurm", "/no/where"], "/no/where is no folder"),
        (["lsf"], "no package brings a launcher named 'lsf'"),
    ],
)
def test_a_wrong_word_is_one_line(words, said):
    with pytest.raises(SystemExit, match=said):
        main(words)


def test_a_launcher_of_another_package_is_found_by_its_entry_point(monkeypatch):
    class Point:
        name = "pbs"

        def load(self):
            return lambda config: LocalAllocator()

    monkeypatch.setattr(launchers, "entry_points", lambda group: [Point()] if group == launchers.GROUP else [])
    found = launchers.allocator_for(LauncherConfig(name="plugin", plugin="pbs"))
    assert isinstance(found, LocalAllocator)
    with pytest.raises(UsageError, match=r"launcher.plugin: no package brings .*'lsf'; installed: pbs"):
        launchers.allocator_for(LauncherConfig(name="plugin", plugin="lsf"))
