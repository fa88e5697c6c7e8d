import pytest

from benchrunner.core.errors import SweepDirError
from benchrunner.core.paths import SweepPaths
from benchrunner.store.allocations_file import read_jobs, write_jobs


def test_the_jobs_of_one_launcher_are_none_of_anothers(tmp_path):
    paths = SweepPaths(tmp_path)
    assert read_jobs(paths, "slurm") == []
    write_jobs(paths, "slurm", ["7", "8"])
    assert read_jobs(paths, "slurm") == ["7", "8"] and read_jobs(paths, "fake") == []


def test_jobs_that_nobody_can_read_are_to_be_looked_for(tmp_path):
    paths = SweepPaths(tmp_path)
    paths.allocations.write_text("{")
    with pytest.raises(SweepDirError, match=r"is damaged \(.*\): see that no job of this sweep runs, and remove it"):
        read_jobs(paths, "slurm")
