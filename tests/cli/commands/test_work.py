"""`bench work`, `watch` and `--detach` as a user types them; what they do is in tests/run."""

import pytest

from benchrunner.cli import cluster
from benchrunner.core.paths import SweepPaths
from benchrunner.launch import launchers
from benchrunner.launch.fake import FakeLauncher, Script
from benchrunner.store.plan_file import write_plan
from benchrunner.store.runs import ExitSummary
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
        (["work"], "work needs the directory of one sweep, e.g. bench work outputs/latest$"),
        (["watch"], "watch needs the directory of one sweep, e.g. bench watch outputs/latest$"),
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


def asked(monkeypatch, name, place, code=None):
    """What a command asks of this function in the place of a run."""
    calls = []
    ended = ExitSummary(counts={}, num_attempted=0, interrupted_by=code)
    monkeypatch.setattr(f"{place}.{name}", lambda *given, **more: calls.append((*given, more)) or ended)
    return calls


@pytest.mark.parametrize(("signum", "code"), [(None, 0), (15, 143)])
def test_work_does_what_its_flags_say(bench, sweep, monkeypatch, signum, code):
    calls = asked(monkeypatch, "work_on", "benchrunner.run.work", signum)
    monkeypatch.setenv("BENCH_JOB", "77")
    flags = ["--time", "2h", "--budget", "45m", "--no-infer", "--mix", "--repeats", "3", "--round", "2", "timeout_s=60"]
    assert bench("work", str(sweep), *flags)[0] == code
    [(made, paths, more)] = calls
    options, share = more["options"], more["options"].share
    assert made.cells[0].cell.config.timeout_s == 60.0 and paths.root == sweep
    assert (options.resume, options.mix, options.budget_s, options.infer, options.repeats) == (
        True, True, 2700.0, False, 3
    )  # fmt: skip
    assert (share.round, share.job, share.time_s, len(share.worker)) == (2, "77", 7200.0, 12)
    assert options.hardware.device_type == "cpu"


def test_work_without_flags_takes_every_cell_of_the_newest_round(bench, sweep, monkeypatch):
    calls = asked(monkeypatch, "work_on", "benchrunner.run.work")
    monkeypatch.delenv("BENCH_JOB", raising=False)
    monkeypatch.setattr("benchrunner.store.claims_round.latest_round", lambda paths: 4)
    assert bench("work", str(sweep))[0] == 0
    [(_, _, more)] = calls
    options, share = more["options"], more["options"].share
    assert (options.mix, options.budget_s, options.infer, options.repeats) == (False, None, True, None)
    assert (share.round, share.job, share.time_s) == (4, "", None)


def test_one_cell_is_work_too(bench, tmp_path, monkeypatch):
    calls = asked(monkeypatch, "work_on", "benchrunner.run.work")
    place = write_plan(make_plan(cells(1)), tmp_path / "outputs")
    assert bench("work", str(place))[0] == 0 and len(calls[0][0].cells) == 1


@pytest.mark.parametrize("given", ["0", "-1", "1.5"])
def test_no_round_is_before_the_first(bench, sweep, monkeypatch, given):
    calls = asked(monkeypatch, "work_on", "benchrunner.run.work")
    assert bench("work", str(sweep), f"--round={given}")[0] == 1 and calls == []
    assert bench("work", str(sweep), "--round=1")[0] == 0 and calls[0][2]["options"].share.round == 1


def test_a_time_is_a_duration(bench, sweep):
    code, _, err, _ = bench("work", str(sweep), "--time", "soon")
    assert code == 1 and err.startswith("bench: --time: 'soon' is no duration")


def test_who_stops_watching_sees_no_tables(bench, sweep, monkeypatch):
    calls = asked(monkeypatch, "observe", "benchrunner.run.observe", 2)
    code, out, _, _ = bench("watch", str(sweep))
    assert (code, out, len(calls)) == (130, "", 1)


def test_the_allocations_of_a_cluster_are_watched_through_it(bench, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(cluster, "follow_and_report", lambda *given, **more: calls.append((*given, more)) or 7)
    place = write_plan(make_plan(cells(2, **{"launcher.name": "detached"})), tmp_path / "outputs")
    assert bench("watch", str(place))[0] == 7
    [(made, paths, allocator, options, more)] = calls
    assert (len(made.cells), paths.root, type(allocator).__name__) == (2, place, "LocalAllocator")
    assert more == {"only_watch": True} and not options.resume
