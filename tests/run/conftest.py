import os
import subprocess
from pathlib import Path

import pytest

from benchrunner.core.paths import SweepPaths
from benchrunner.launch.processes import MARKER_VARIABLE


@pytest.fixture
def paths(tmp_path):
    return SweepPaths(tmp_path)


@pytest.fixture
def marked():
    """Starts a process that carries a marker, as what a dead sweep leaves running does."""
    left = []

    def start(marker):
        left.append(subprocess.Popen(["sleep", "600"], env=os.environ | {MARKER_VARIABLE: marker}))
        while not Path(f"/proc/{left[-1].pid}/environ").read_bytes():
            pass  # the kernel shows it a moment after the program has begun
        return left[-1]

    yield start
    for process in left:
        process.kill()
        process.wait()
