import pytest

from benchrunner.core.paths import SweepPaths


@pytest.fixture
def paths(tmp_path):
    return SweepPaths(tmp_path)
