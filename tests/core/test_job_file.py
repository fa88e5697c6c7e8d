import subprocess
import sys

import pytest

from benchrunner.core.errors import DamagedFile
from benchrunner.core.files import write_json
from benchrunner.core.job_file import read_job, read_own_job

JOB = {
    "cell": {"cell_id": "1"}, "hardware": {"device_type": "cpu", "num_devices": 1}, "attempt": 1, "marker": "m",
    "fault": None, "devices": [0], "started_at": "2026-11-21T03:00:00+00:00",
}  # fmt: skip


@pytest.fixture
def path(tmp_path):
    write_json(tmp_path / "cell.json", JOB)
    return tmp_path / "cell.json"


def test_another_run_and_the_ranks_read_the_same(path):
    assert read_job(path) == read_own_job(path) == JOB


def test_another_run_trusts_it_less_than_its_ranks_do(path):
    write_json(path, JOB | {"devices": "0"})
    with pytest.raises(DamagedFile, match="devices: input should be a valid array"):
        read_job(path)
    assert read_own_job(path)["devices"] == "0"


def test_a_rank_reads_its_job_without_loading_what_knows_types(path):
    script = (
        "import sys; from pathlib import Path; import benchrunner.worker.__main__;"
        "from benchrunner.core.job_file import read_own_job;"
        f"read_own_job(Path({str(path)!r})); sys.exit('pydantic' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
