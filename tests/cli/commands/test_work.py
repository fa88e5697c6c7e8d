"""`bench work`, `watch` and `--detach` as a user types them; what they do is in tests/run."""

import pytest

from benchrunner.core.paths import SweepPaths
from benchrunner.launch import launchers
from benchrunner.launch.fake import FakeLauncher, Script
from benchrunner.store.plan_file import write_plan
from fake_sweeps import cells, make_plan


@pytest.fixture
def sweep(tmp_path):
    return write_plan(make_plan(cells(2)), tmp_path / "outputs")


def test_work_runs_what_is_there_and_prints_no_table(bench, sweep, monkeypatch):
    broken = FakeLauncher(lambda job: Script(raises=OSError("no more processes")))
    monkeypatch.setattr(launchers, "job_launcher", lambda config, environ: broken)
    code, out, err, _ = bench("work", str(sweep))
    paths = SweepPaths(sweep)
    assert (code, out) == (0, "") and err.count("no more processes") == 2
    assert len(list(paths.root.glob("cells/*/record.json"))) == 2 and len(list(paths.workers.glob("*.json"))) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["work"], "work needs the directory of one sweep"),
        (["--detach"], "--detach: cells of launcher=local end with bench"),
        (["launcher=plugin"], "launcher.plugin: no package brings a launcher"),
        (["launcher=slurm", "launcher.jobs=0"], "launcher.jobs: 0 is not allowed"),
        (["launcher=slurm", "launcher.partitoin=x"], "launcher.partitoin: no such key"),
    ],
)
def test_wrong_words_are_one_message(refused, words, message):
    refused(words, message)


def test_a_round_is_a_number(bench, sweep):
    code, out, err, _ = bench("work", "--round", "x", str(sweep))
    assert (code, out) == (1, "") and "--round: 'x' is no number from 1 on" in err


def test_a_sweep_of_this_machine_that_nobody_runs_is_shown(bench, sweep):
    code, out, err, _ = bench("watch", str(sweep))
    assert code == 4 and out.splitlines()[-1] == str(sweep) and "PARTIAL: 2 of 2 cells" in out
    assert "0 of 2 cells have their records" in err
