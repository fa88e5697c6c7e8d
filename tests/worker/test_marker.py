"""What /proc shows of the environment of processes that were not started, but forked."""

import os
import subprocess
import sys
import uuid

import pytest

from benchrunner.core.job_file import MARKER_VARIABLE, NO_MARKER
from benchrunner.launch.processes import kill_marked, marked_pids

SHOW = """
import os, sys, time
from benchrunner.worker.marker import show_marker
os.environ["BENCH_ATTEMPT"] = "as Python sees it"
os.environ["MORE"] = "x" * 100_000
show_marker(sys.argv[1])
if os.fork() and os.fork():
    print("ready", flush=True)
time.sleep(60)
"""


def start(marker, own=NO_MARKER):
    env = os.environ | {"NOT_" + MARKER_VARIABLE: NO_MARKER} | ({MARKER_VARIABLE: own} if own is not None else {})
    command = [sys.executable, "-c", SHOW, marker]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_process_and_all_that_is_forked_from_it_are_found_by_the_marker_that_it_shows():
    marker = uuid.uuid4().hex
    process = start(marker)
    assert process.stdout.readline() == "ready\n"
    found = marked_pids(marker)
    assert process.pid in found and len(found) == 3
    assert set(found).isdisjoint(marked_pids(NO_MARKER)), "others may hold a place for a marker at this time"
    assert sorted(kill_marked(marker)) == found
    process.communicate(timeout=20)
    assert marked_pids(marker) == []


@pytest.mark.parametrize("own", [None, "", "0" * 31, "0" * 33])
def test_a_marker_without_its_place_is_an_error(own):
    _, said = start(uuid.uuid4().hex, own).communicate(timeout=20)
    assert "ValueError" in said
