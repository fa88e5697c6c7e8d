import json
import os
import shutil
import signal
from dataclasses import replace
from datetime import datetime

import filelock
import pytest

from benchrunner.core.errors import ConfigError, SweepDirError
from benchrunner.core.faults import parse_fault
from benchrunner.core.paths import SweepPaths
from benchrunner.core.record import record_to_dict
from benchrunner.launch import variables
from benchrunner.launch.fake import FakeLauncher, Script
from benchrunner.machine.devices import Locks
from benchrunner.plan.costs import expected_cell_s
from benchrunner.plan.labels import short_labels
from benchrunner.run import attempts, interrupts, ledger
from benchrunner.run.options import Share
from benchrunner.run.progress import Progress
from benchrunner.store.runs import read_runs
from benchrunner.store.workers import read_worker
from fake_sweeps import ERROR, OK, OOM, cells, record, run
from samples import H200, make_cell, make_record, plan_cell

# --- verdicts and exit codes


def test_every_cell_gets_its_record(paths):
    ruled = plan_cell(make_cell(precision="nf4"), "unsupported", "rule.nf4", "nf4 cannot train")
    planned = [*cells(2), ruled]
    summary, launcher = run(paths, planned)
    assert [record(paths, one)["status"] for one in planned] == ["ok", "ok", "unsupported"]
    assert record(paths, ruled)["attempt"] == 0
    assert summary.counts == {"ok": 2, "unsupported": 1}
    assert summary.exit_code == 0 and len(launcher.handles) == 2
    made = record(paths, planned[0])
    assert made["metrics"]["step_time_median_s"] == 0.1
    assert made["environment"]["versions"] == {"torch": "2.13.0"}
    assert made["wall_s"] >= 1.0


@pytest.mark.parametrize(
    ("script", "status", "code"),
    [
        (OK, "ok", 0),
        (Script(errors={0: ERROR | {"kind": "oom"}}, exits={0: 1}), "oom", 4),
        (Script(errors={0: ERROR | {"kind": "unsupported", "code": "runtime.x"}}, exits={0: 1}), "unsupported", 4),
        (Script(errors={0: ERROR}, exits={0: 1}), "failed", 2),
        (Script(exits={0: -11}), "failed", 2),
        (Script(result={"checks": {"shape": {"ok": False, "expected": 1, "observed": 2}}}), "invalid", 2),
        (Script(raises=OSError("no more processes")), "failed", 2),
        (Script(result={"step_times_s": "nonsense"}), "failed", 2),
    ],
)
def test_the_exit_code(paths, script, status, code):
    planned = cells(1)
    summary, _ = run(paths, planned, script)
    assert (record(paths, planned[0])["status"], summary.exit_code) == (status, code)


@pytest.mark.parametrize(
    ("fail_on", "code"), [((), 0), (("oom",), 2), (("oom.device",), 2), (("oom.host", "skipped"), 0)]
)
def test_what_else_makes_a_run_fail(paths, fail_on, code):
    planned = cells(2)
    summary, _ = run(paths, planned, {planned[0].cell.slug: OOM}, fail_on=fail_on)
    assert summary.counts == {"ok": 1, "oom": 1} and summary.exit_code == code


def test_nothing_attempted_is_not_green(paths):
    summary, _ = run(paths, [plan_cell(make_cell(), "skipped", "skipped.devices", "needs 8 devices")])
    assert summary.exit_code == 4


def test_one_bad_cell_does_not_take_the_sweep_down(paths):
    planned = cells(4)
    bad = {planned[0].cell.slug: Script(raises=RuntimeError("no")), planned[2].cell.slug: Script(exits={0: -9})}
    summary, _ = run(paths, planned, bad)
    assert summary.counts == {"ok": 2, "failed": 2}
    made = record(paths, planned[0])
    assert made["reason"] == "the job could not be started: RuntimeError: no"
    assert (made["attempt"], made["wall_s"]) == (1, 0.0)


@pytest.mark.parametrize("error", [RuntimeError("no home"), FileNotFoundError("no working directory")])
def test_a_machine_on_which_no_job_can_be_made_fails_cells_and_not_the_sweep(paths, monkeypatch, error):
    def nowhere(job, environ):
        raise error

    monkeypatch.setattr(attempts, "job_environment", nowhere)
    planned = cells(2)
    summary, _ = run(paths, planned, Script(raises=error))
    assert summary.counts == {"failed": 2} and summary.exit_code == 2
    assert str(error) in record(paths, planned[1])["reason"]
    run(paths, planned, resume=True)
    assert [record(paths, cell)["status"] for cell in planned] == ["ok", "ok"], (
        "its variables are not told, that is all"
    )


def test_an_attempt_that_cannot_be_made_fails_its_cell_alone(paths, monkeypatch):
    planned = cells(2)
    make = attempts.Attempts.next_job

    def forbidden(self, cell, *more, **how):
        if cell is planned[0]:
            raise PermissionError(13, "Permission denied")
        return make(self, cell, *more, **how)

    monkeypatch.setattr(attempts.Attempts, "next_job", forbidden)
    summary, _ = run(paths, planned)
    assert summary.counts == {"failed": 1, "ok": 1}
    assert record(paths, planned[0])["reason_code"] == "failed.launch"


def test_a_record_that_cannot_be_written_loses_nothing_else(paths, monkeypatch):
    planned = cells(3)
    write = ledger.write_json

    def full(path, value, **more):
        if path.parent.name == planned[1].cell.slug:
            raise OSError(28, "No space left on device")
        write(path, value, **more)

    monkeypatch.setattr(ledger, "write_json", full)
    summary, _ = run(paths, planned)
    assert summary.counts == {"ok": 2, "failed": 1} and summary.exit_code == 2
    assert record(paths, planned[2])["status"] == "ok"


def test_a_record_says_how_long_its_cell_took_and_beside_which_others(paths):
    planned = cells(3)
    run(paths, planned, hardware=replace(H200, num_devices=2))
    made = [record(paths, one) for one in planned]
    slugs = [one.cell.slug for one in planned]
    assert [one["ran_beside"] for one in made] == [[slugs[1]], [slugs[0]], []]
    assert all(1.0 <= one["wall_s"] < 1.5 for one in made)


def test_a_rank_that_left_without_a_word_is_told_from_a_job_of_which_nothing_is_known(paths):
    planned = cells(1)
    run(paths, planned, Script(result=None))
    assert record(paths, planned[0])["reason"].startswith("rank 0, in phase measure, exited with code 0 without")


@pytest.mark.parametrize("name", ["run.watch.gather", "run.sweep.judge"])
def test_where_no_verdict_can_be_found_that_is_the_verdict(paths, monkeypatch, name):
    def odd(*given, **more):
        raise ValueError("odd")

    monkeypatch.setattr(f"benchrunner.{name}", odd)
    planned = cells(2)
    summary, _ = run(paths, planned)
    made = record(paths, planned[0])
    assert (made["reason_code"], made["reason"]) == (
        "failed.runner",
        "no verdict could be found: ValueError: odd",
    )
    assert bool(made["ranks"]) == (name == "run.sweep.judge") and summary.counts == {"failed": 2}


def test_an_attempt_is_numbered_above_the_one_that_its_record_is_of(paths):
    planned = cells(1)
    path = paths.cell(planned[0].place).record
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(record_to_dict(make_record(planned[0].cell, "failed", "failed.exit", attempt=4))))
    _, launcher = run(paths, planned, resume=True)
    assert launcher.handles[0].job.attempt == record(paths, planned[0])["attempt"] == 5


def test_what_became_of_an_attempt_that_is_tried_again_is_kept(paths):
    planned = cells(1)
    taken = Script(errors={0: ERROR | {"message": "The server socket: EADDRINUSE"}}, exits={0: 1})
    between = []

    def script(job):
        if job.attempt == 1:
            return taken
        between.append(record(paths, planned[0]))
        return OK

    run(paths, planned, script)
    assert between[0]["reason_code"] == "failed.infrastructure" and between[0]["ranks"]
    (earlier,) = record(paths, planned[0])["earlier_attempts"]
    assert (earlier["attempt"], earlier["reason_code"]) == (1, "failed.infrastructure")


def test_a_cell_is_not_tried_again_for_which_no_time_is_left(paths, capsys):
    planned = cells(1)
    taken = Script(duration_s=90.0, errors={0: ERROR | {"message": "EADDRINUSE"}}, exits={0: 1})
    summary, launcher = run(paths, planned, taken, budget_s=100.0)
    assert len(launcher.handles) == 1 and summary.notes == []
    assert "trying again" not in capsys.readouterr().err


def test_a_device_that_failed_is_noted(paths):
    lost = Script(errors={0: ERROR | {"message": "CUDA error: uncorrectable ECC error encountered"}}, exits={0: 1})
    summary, _ = run(paths, cells(1, retries=0), lost, H200)
    assert "device 0 failed under" in summary.notes[0]


def test_a_kill_by_the_kernel_for_lack_of_memory(paths):
    planned = cells(1)
    run(paths, planned, Script(exits={0: -9}, num_oom_kills=1))
    assert record(paths, planned[0])["reason_code"] == "oom.host"


def test_a_cold_cache_is_gone_after_its_cell(paths):
    planned = [plan_cell(make_cell(compile="inductor"))]

    def compiles(job):
        launcher.clock.at(0.5, lambda: job.paths.cache.mkdir())
        return OK

    launcher = FakeLauncher(compiles)
    run(paths, planned, launcher=launcher)
    assert variables.starts_cold(planned[0].cell)
    assert not launcher.handles[0].job.paths.cache.exists()


def test_a_sweep_is_run_by_one_bench_at_a_time(paths):
    with filelock.FileLock(paths.lock), pytest.raises(SweepDirError, match="another bench"):
        run(paths, cells(1))


def test_where_nothing_can_be_written_nothing_is_run(paths):
    paths.lock.mkdir()
    with pytest.raises(SweepDirError, match=f"^{paths.root}: cannot be written: Is a directory$"):
        run(paths, cells(1))
    assert not (paths.root / "cells").exists()


def test_when_the_run_began_is_kept(paths):
    run(paths, cells(1))
    assert datetime.fromisoformat(read_runs(paths)[0][0].started_at)


@pytest.mark.parametrize(
    ("kinds", "called"),
    [
        (("max",), "micro_batch_size {size} · debug · {digits}  "),
        (("max", "best"), "micro_batch_size {size} · {digits}  "),
    ],
    ids=["a single search", "one of two"],
)
def test_a_probe_is_called_as_its_search_with_its_size(paths, capsys, kinds, called):
    def sized(size):
        return plan_cell(make_cell(leaves={"micro_batch_size": size, "memory_limit_gib": 40}))

    searches = [replace(sized(kind), predicted={"micro_batch_size": 2}) for kind in kinds]
    run(paths, searches, lambda job: OOM if job.cell.sizes.micro_batch_size > 2 else OK, hardware=H200)
    said = capsys.readouterr().err
    for size, status in ((2, "ok  "), (3, "oom ")):
        label = called.format(size=size, digits=sized(size).cell.cell_id[:6])
        assert f" {status}        {label}" in said


# --- faults


def test_a_planted_fault_is_in_job_and_record(paths):
    planned = cells(1)
    _, launcher = run(paths, planned, fault="hang@1")
    assert launcher.handles[0].job.fault == parse_fault("hang@1")
    assert record(paths, planned[0])["fault"] == "hang@1"


def test_a_fault_is_planted_in_the_cells_that_it_names_alone(paths):
    first, second = cells(2)
    _, launcher = run(paths, [first, second], fault=f"hang@1/{second.cell.slug}")
    assert [handle.job.fault and handle.job.fault.kind for handle in launcher.handles] == [None, "hang"]
    assert [record(paths, planned)["fault"] for planned in (first, second)] == [None, f"hang@1/{second.cell.slug}"]


def test_a_wrong_fault_starts_nothing(paths):
    with pytest.raises(ConfigError):
        run(paths, cells(1), fault="hangs")
    assert list(paths.root.iterdir()) == []


# --- progress


def test_a_line_a_finished_cell_on_stderr(paths, capsys):
    run(paths, cells(2))
    out, err = capsys.readouterr()
    assert out == "" and err.count("ok  ") == 2 and "1/2 done" in err


def test_cells_are_called_by_what_tells_them_apart(paths, capsys):
    planned = cells(2)
    run(paths, planned)
    said = capsys.readouterr().err
    assert all(f" ok          {label}  " in said for label in short_labels(planned).values())


def test_how_the_devices_were_used_is_said_and_in_the_summary(paths, capsys):
    summary, _ = run(paths, cells(3), Script(duration_s=10.0, result=OK.result))
    assert summary.busy_share > 0.9 and summary.concurrency > 0.9
    said = f"devices at work {summary.busy_share:.1%} of the time while cells waited; 1.0 cells at once on average"
    assert said in capsys.readouterr().err


def test_what_ended_a_sweep_early_is_in_the_summary(paths):
    summary, _ = run(paths, cells(3, brake=1), Script(errors={0: ERROR}, exits={0: 1}))
    assert summary.stopped_by == "brake" and summary.notes[0].startswith("stopped early, 2 cells were not started")
    summary, _ = run(SweepPaths(paths.root / "budget"), cells(3), budget_s=1.0)
    assert len(summary.notes) == 1 and "3 cells were not started" in summary.notes[0]


def test_the_live_line_calls_cells_by_what_tells_them_apart(paths, monkeypatch):
    seen = set()
    monkeypatch.setattr(Progress, "report_running", lambda self, running: seen.update(running))
    planned = cells(2)
    run(paths, planned)
    labels = short_labels(planned).values()
    assert {said.partition(" (")[0] for said in seen} == set(labels)


@pytest.mark.parametrize(("repeats", "expected"), [(None, 2), (3, 3)])
def test_a_probe_is_measured_in_as_many_processes_as_are_asked_for(paths, repeats, expected):
    search = plan_cell(make_cell(leaves={"micro_batch_size": "max", "memory_limit_gib": 40, "repeats": 2}))
    script = lambda job: OOM if job.cell.sizes.micro_batch_size > 1 else OK  # noqa: E731
    _, launcher = run(paths, [search], script, hardware=H200, repeats=repeats)
    sizes = [handle.job.cell.sizes.micro_batch_size for handle in launcher.handles]
    assert sizes.count(1) == expected


def test_a_cell_that_is_at_work_when_the_budget_is_over_is_ended(paths):
    planned = cells(1)
    budget_s = expected_cell_s(planned[0], "cpu") + 1.0
    run(paths, planned, Script(duration_s=10_000.0, phase="build"), budget_s=budget_s)
    assert record(paths, planned[0])["reason_code"] == "skipped.budget"


def test_a_worker_gives_signs_of_life_now_and_then(paths):
    run(paths, cells(1), share=Share(worker="w"))
    assert read_worker(paths, "w").beats == 1


def test_where_no_cell_waited_nothing_is_said_of_devices(paths, capsys):
    summary, _ = run(paths, cells(1))
    assert summary.busy_share is None and "devices at work" not in capsys.readouterr().err


def test_a_second_signal_ends_every_job_at_once(paths, monkeypatch):
    exits = []
    monkeypatch.setattr(interrupts.os, "_exit", exits.append)

    def script(job):
        if launcher.handles:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGTERM)
            exits.append(launcher.handles[0].ended_s)
        return OK

    launcher = FakeLauncher(script)
    run(paths, cells(2), hardware=H200, launcher=launcher)
    assert exits == [143, launcher.handles[0].started_s]


def test_a_cell_for_which_too_few_devices_are_left_is_skipped(paths):
    lost = Script(errors={0: ERROR | {"message": "CUDA error: uncorrectable ECC error encountered"}}, exits={0: 1})
    planned = cells(2, devices=4, retries=0)
    run(paths, planned, lost, H200)
    made = record(paths, planned[1])
    assert made["reason_code"] == "skipped.devices"
    assert made["reason"].startswith("needs 4 devices a node, 3 left of 4: device 0 failed under")


@pytest.mark.parametrize(("is_at_work", "num_said"), [(True, 0), (False, 1)])
def test_only_one_who_is_idle_says_that_another_sweep_has_the_devices(paths, tmp_path, capsys, is_at_work, num_said):
    (tmp_path / "locks").mkdir()
    others = Locks(tmp_path / "locks", "abcd")
    assert all(others.take(device) for device in range(int(is_at_work), 4))
    launcher = FakeLauncher(lambda job: Script(duration_s=60.0, result=OK.result))
    launcher.clock.at(30.0, others.close)
    run(paths, cells(2), launcher=launcher, hardware=H200, locks=Locks(tmp_path / "locks", "abcd"))
    assert capsys.readouterr().err.count("that another bench of yours uses") == num_said


def test_a_sweep_that_is_deleted_while_it_runs_is_not_made_anew(tmp_path, monkeypatch):
    def conclude(*arguments, **more):
        made = concluded(*arguments, **more)
        shutil.rmtree(paths.root, ignore_errors=True)
        return made

    concluded, paths = ledger.Ledger.conclude, SweepPaths(tmp_path / "sweep")
    monkeypatch.setattr(ledger.Ledger, "conclude", conclude)
    paths.root.mkdir()
    summary, _ = run(paths, cells(3))
    assert summary.exit_code == 2 and summary.counts == {"ok": 1, "failed": 2}
    assert not paths.root.exists()
