import subprocess
import sys

import pytest

import benchrunner
from benchrunner.core.errors import SweepDirError, UsageError
from benchrunner.core.paths import SweepPaths
from benchrunner.report.columns import COLUMNS
from fake_sweeps import OOM, cells, run


def test_a_sweep_is_a_frame_with_numbers(tmp_path):
    planned = cells(2)
    from benchrunner.store.plan_file import write_plan
    from fake_sweeps import make_plan

    paths = SweepPaths(write_plan(make_plan(planned), tmp_path))
    run(paths, planned, {planned[0].cell.slug: OOM})
    frame = benchrunner.load(paths.root)
    assert frame["status"].tolist() == ["oom", "ok"] and frame["step_time_median_s"].isna().tolist() == [True, False]
    assert list(frame.columns)[: len(COLUMNS)] == list(COLUMNS) and frame["config.seed"].tolist() == ["0", "1"]
    assert len(benchrunner.load(paths.root, str(paths.root))) == 2


def test_what_is_no_sweep_is_refused(tmp_path):
    with pytest.raises(SweepDirError):
        benchrunner.load(tmp_path)
    with pytest.raises(UsageError, match="needs the directory of a sweep"):
        benchrunner.load()


def test_ranks_do_not_pay_for_it():
    code = "import benchrunner, sys; sys.exit('pandas' in sys.modules or 'benchrunner.report' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
