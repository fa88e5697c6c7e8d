"""What the kernel tells of processes and of its kills, from folders that look like /proc and /sys."""

import os
import signal
from pathlib import Path

import pytest

from benchrunner.launch import processes
from benchrunner.launch.processes import is_watched, marked_pids, num_oom_kills, send_signal

MARKER = "abc"


@pytest.fixture
def proc(tmp_path):
    """A folder like /proc, and what adds a process to it."""

    def add(pid, *environ, parent=1):
        entry = tmp_path / str(pid)
        entry.mkdir()
        (entry / "environ").write_bytes(b"\0".join(environ))
        (entry / "status").write_bytes(b"Name:\tpython\nPPid:\t%d\nTracerPid:\t0\n" % parent)

    add(3, b"A=1", b"BENCH_ATTEMPT=abc", b"B=2")
    add(4, b"BENCH_ATTEMPT=abcd")
    add(5, b"X=BENCH_ATTEMPT=abc")
    (tmp_path / "6").mkdir()
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "environ").write_bytes(b"BENCH_ATTEMPT=abc")
    return tmp_path, add


def test_only_the_whole_marker_is_one(proc):
    assert marked_pids(MARKER, proc[0]) == [3]


def test_an_attempt_is_watched_while_an_agent_is_the_child_of_the_one_that_started_it(proc):
    folder, add = proc
    add(7, b"BENCH_ATTEMPT=abc", b"BENCH_PARENT_PID=70", parent=1)
    assert not is_watched(MARKER, folder), "its bench has gone, and init took it"
    add(8, b"BENCH_ATTEMPT=abc", b"BENCH_PARENT_PID=80", parent=80)
    assert is_watched(MARKER, folder)
    (folder / "8" / "status").unlink()
    assert not is_watched(MARKER, folder)
    (folder / "8" / "status").write_bytes(b"Name:\tpython\n")
    assert not is_watched(MARKER, folder)


def test_all_that_are_there_are_signalled(monkeypatch):
    told = []

    def kill(pid, signum):
        told.append((pid, signum))
        if pid < 3:
            raise ProcessLookupError if pid == 1 else PermissionError

    monkeypatch.setattr(os, "kill", kill)
    send_signal([1, 2, 3], signal.SIGTERM)
    assert told == [(1, signal.SIGTERM), (2, signal.SIGTERM), (3, signal.SIGTERM)]


@pytest.fixture
def kernel(tmp_path, monkeypatch):
    """Says what /proc/self/cgroup holds, and gives the root of the cgroups."""
    cgroup, vmstat = tmp_path / "cgroup", tmp_path / "vmstat"
    vmstat.write_text("nr_free_pages 9\noom_kill 40\n")
    instead = {"/proc/self/cgroup": cgroup, "/proc/vmstat": vmstat}
    monkeypatch.setattr(processes, "Path", lambda path: instead.get(path) or Path(path))
    monkeypatch.setattr(processes, "CGROUP_ROOT", tmp_path / "fs")

    def write(text, **counts):
        cgroup.write_text(text)
        for place, count in counts.items():
            path = tmp_path / "fs" / place.replace("__", "/").replace("_dot_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"oom 9\noom_kill {count}\nother 1 2\n")
        return num_oom_kills()

    return write


@pytest.mark.parametrize(
    ("text", "counts", "found"),
    [
        ("0::/job\n", {"job__memory_dot_events": 2, "memory_dot_events": 3}, 2),
        ("0::/job\n", {"memory_dot_events": 3}, 3),
        ("0::/job\n", {}, 40),
        ("12:cpu,cpuacct:/x\n3:memory:/job\n", {"memory__job__memory_dot_oom_control": 5}, 5),
        ("3:memory:/job\n", {"memory__memory_dot_oom_control": 6, "memory_dot_events": 7}, 6),
        ("3:memory:/job\n0::/x\n", {"memory__job__memory_dot_oom_control": 6, "memory_dot_events": 7}, 6),
        ("12:cpu:/x\n", {"x__memory_dot_events": 5, "memory_dot_events": 5}, 40),
        ("0::/a:b\n", {"a:b__memory_dot_events": 8}, 8),
    ],
)
def test_the_nearest_count_of_kills_for_memory_is_taken(kernel, text, counts, found):
    assert kernel(text, **counts) == found


def test_without_cgroups_the_host_counts_and_without_any_nobody(kernel, tmp_path):
    (tmp_path / "cgroup").unlink(missing_ok=True)
    assert num_oom_kills() == 40
    (tmp_path / "vmstat").unlink()
    assert num_oom_kills() is None
