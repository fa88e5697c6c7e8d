"""A disk that becomes full, or read-only, under a running sweep: what was finished stays, the rest is run again."""

import json
import subprocess
import sys

import pytest

from cells import SUPPORT
from disk_job import BAD

JOB = SUPPORT / "disk_job.py"
NAMESPACES = (["unshare", "--mount"], ["unshare", "--user", "--map-root-user", "--mount"])


def own_mounts():
    """A command that gives what follows it mounts of its own."""
    for words in NAMESPACES:
        command = [*words, "mount", "-t", "tmpfs", "none", "/mnt"]
        if subprocess.run(command, capture_output=True, check=False).returncode == 0:
            return words
    pytest.skip("needs the right to mount")


@pytest.fixture(scope="module", params=["full", "readonly", "full_to_the_end"])
def seen(request, tmp_path_factory):
    command = [*own_mounts(), sys.executable, str(JOB), request.param, str(tmp_path_factory.mktemp("disk"))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]) | {"bad": range(*BAD[request.param]), "stderr": done.stderr}


def test_the_records_before_and_after_are_there(seen):
    assert seen["before"] == [None if index in seen["bad"] else ["ok", 1] for index in range(6)]
    assert seen["code"] == 2


def test_nothing_half_written_is_left(seen):
    assert seen["leftovers"] == [] and "Traceback" not in seen["stderr"]


def test_the_tables_are_made_or_it_is_said_how(seen):
    assert ("the tables cannot be written" in seen["stderr"]) == (5 in seen["bad"])


def test_a_resumed_sweep_runs_what_is_missing_and_nothing_else(seen):
    assert [status for status, _ in seen["after"]] == ["ok"] * 6
    assert all(seen["after"][index] == ["ok", 1] for index in range(6) if index not in seen["bad"])
    assert seen["resumed"] == 0 and seen["rows"] == 7
