"""A sweep that the commands on directories are given."""

import pytest


@pytest.fixture
def nothing_can_run(bench):
    """A sweep of two cells that no CPU has the memory for: (exit code, stdout, stderr, files)."""
    return bench("-m", "model=llama2-70b", "strategy=single,ddp", "hardware=cpu")


@pytest.fixture
def sweep(nothing_can_run):
    """The directory of that sweep, relative to the folder that `bench` is called in."""
    return nothing_can_run[1].splitlines()[-1]
