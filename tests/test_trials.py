"""The trials of the audits (`benchmarks/faults.py` makes the table of docs/reliability.md of them), each as a test.

Real sweeps through the command line, ten to sixty seconds each.
"""

import os
import sys

import pytest

from benchrunner.core.paths import CHECKOUT

sys.path.insert(0, str(CHECKOUT / "benchmarks"))

import trials
from trials_habits import HABITS
from trials_listed import LISTED
from trials_meanwhile import MEANWHILE
from trials_surroundings import SURROUNDINGS

ALL = [*LISTED, *SURROUNDINGS, *MEANWHILE, *HABITS]


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", "1"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


@pytest.mark.slow
@pytest.mark.parametrize("trial", ALL, ids=lambda trial: trial.what.replace(" ", "_"))
def test_what_must_hold_does(trial):
    row = trials.row_of(trial)
    if row is None:
        pytest.skip("this machine does not let it be tried")
    assert row.holds, row.observed
    assert (row.left, row.lost) == (0, 0)


def test_each_is_told_apart_by_its_name():
    assert len({trial.what for trial in ALL}) == len(ALL) > 50
