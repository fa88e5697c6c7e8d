import json
import os
import signal
import threading
from itertools import pairwise

import filelock
import pytest

from benchrunner.core.errors import ConfigError, SweepDirError
from benchrunner.core.faults import parse_fault
from benchrunner.core.paths import SweepPaths
from benchrunner.launch import variables
from benchrunner.launch.fake import FakeLauncher, Script
from benchrunner.machine.devices import Locks
from benchrunner.plan.plan import Plan
from benchrunner.run import ledger
from benchrunner.run.options import RunOptions
from benchrunner.run.resume import Selection
from benchrunner.run.sweep import run_plan
from samples import CPU, H200, make_cell, plan_cell

RESULT = {"step_times_s": [0.1] * 3, "tokens_per_step": 10, "num_parameters": 5, "num_trainable_parameters": 5}
OK = Script(result=RESULT)
ENVIRONMENT = {"benchrunner": "0.1.0", "versions": {"torch": "2.13.0"}, "driver": None, "gpus": []}
PARAMETERS = {"message": "boom", "type": "RuntimeError", "kind": "exception", "traceback": "", "at": 1.0}


def make_plan(cells, hardware=CPU):
    return Plan(cells=cells, hardware=hardware, sweep_name="cli", words=[], created_at="2026-11-21T03:00:00+00:00")


def cells(count, devices=1, **leaves):
    kind = "single" if devices == 1 else "ddp"
    return [
        plan_cell(make_cell(strategy=kind, leaves={"seed": seed, "devices": devices} | leaves)) for seed in range(count)
    ]


def run(paths, planned, script=lambda job: OK, hardware=CPU, launcher=None, **options):
    """Run with a fake launcher; `script` is a Script, slug → Script, or a function of the job."""
    if isinstance(script, Script):
        launcher = launcher or FakeLauncher(lambda job: script)
    elif isinstance(script, dict):
        launcher = launcher or FakeLauncher(lambda job: script.get(job.cell.slug, OK))
    launcher = launcher or FakeLauncher(script)
    settings = {"environment": ENVIRONMENT, "clock": launcher.clock, "fault": None, "hardware": hardware} | options
    summary = run_plan(make_plan(planned, hardware), paths, launcher=launcher, options=RunOptions(**settings))
    return summary, launcher


def record(paths, planned):
    return json.loads(paths.cell(planned.cell.slug).record.read_text())


@pytest.fixture
def paths(tmp_path):
    return SweepPaths(tmp_path)


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
        (Script(errors={0: PARAMETERS | {"kind": "oom"}}, exits={0: 1}), "oom", 0),
        (Script(errors={0: PARAMETERS | {"kind": "unsupported", "code": "runtime.x"}}, exits={0: 1}), "unsupported", 0),
        (Script(errors={0: PARAMETERS}, exits={0: 1}), "failed", 2),
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


def test_nothing_attempted_is_not_green(paths):
    summary, _ = run(paths, [plan_cell(make_cell(), "skipped", "skipped.devices", "needs 8 devices")])
    assert summary.exit_code == 4


def test_one_bad_cell_does_not_take_the_sweep_down(paths):
    planned = cells(4)
    bad = {planned[0].cell.slug: Script(raises=RuntimeError("no")), planned[2].cell.slug: Script(exits={0: -9})}
    summary, _ = run(paths, planned, bad)
    assert summary.counts == {"ok": 2, "failed": 2}
    assert record(paths, planned[0])["reason"] == "the job could not be started: RuntimeError: no"


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


def test_a_kill_by_the_kernel_for_lack_of_memory(paths):
    planned = cells(1)
    run(paths, planned, Script(exits={0: -9}, num_oom_kills=1))
    assert record(paths, planned[0])["reason_code"] == "oom.host"


def test_a_cell_too_large_for_this_machine_is_skipped(paths):
    planned = cells(1, devices=8)
    summary, launcher = run(paths, planned, hardware=H200)
    assert record(paths, planned[0])["reason_code"] == "skipped.devices"
    assert launcher.handles == [] and summary.exit_code == 4


# --- time


def test_a_hanging_cell_is_stopped_at_its_limit(paths):
    planned = cells(2, timeout_s=30.0)
    summary, launcher = run(paths, planned, {planned[0].cell.slug: Script(hangs=True, phase="compile")})
    made = record(paths, planned[0])
    assert (made["status"], made["reason_code"]) == ("timeout", "timeout.compile")
    assert 30 <= made["wall_s"] < 35
    assert launcher.handles[0].num_dumps == 1
    assert summary.counts == {"timeout": 1, "ok": 1}


@pytest.mark.parametrize("phase", ["start", "build", "warmup", "measure", "teardown"])
def test_a_phase_without_progress_is_stopped_at_its_own_limit(paths, phase):
    planned = cells(1, devices=2, **{f"limits.{phase}_s": 20.0})
    run(paths, planned, Script(hangs=True, phase=phase))
    made = record(paths, planned[0])
    assert made["reason_code"] == f"timeout.{phase}" and f"limits.{phase}_s" in made["reason"]
    assert 20 <= made["wall_s"] < 25
    assert set(made["evidence"]["stacks"]) == {"0", "1"}


def test_steps_are_progress(paths):
    planned = cells(1, **{"limits.measure_s": 20.0})
    run(paths, planned, Script(duration_s=100.0, beat_every_s=5.0, result=RESULT))
    assert record(paths, planned[0])["status"] == "ok"


def test_the_last_step_is_in_the_evidence(paths):
    planned = cells(1, **{"limits.measure_s": 20.0})
    run(paths, planned, Script(hangs=True, beat_every_s=5.0, beats_until_s=50.0))
    made = record(paths, planned[0])
    assert made["evidence"]["ranks"][0]["steps"] == 10 and "after 10 steps" in made["reason"]
    assert 70 <= made["wall_s"] < 77


def test_ranks_that_wait_for_one_behind_are_given_its_time(paths):
    planned = cells(1, devices=2, **{"limits.build_s": 60.0, "limits.compile_s": 10.0})
    run(paths, planned, Script(hangs=True, phase="build", phases={1: "compile"}))
    made = record(paths, planned[0])
    assert made["reason_code"] == "timeout.build" and 60 <= made["wall_s"] < 65


def test_a_queue_that_is_not_ours_costs_no_time(paths):
    planned = cells(1, timeout_s=30.0)
    run(paths, planned, Script(queued_s=100.0, duration_s=110.0, result=RESULT))
    assert record(paths, planned[0])["status"] == "ok"


def test_a_job_whose_rank_failed_does_not_linger(paths):
    planned = cells(1, devices=2)
    run(paths, planned, Script(hangs=True, phase="build", errors={1: PARAMETERS | {"kind": "oom"}}))
    made = record(paths, planned[0])
    assert made["reason_code"] == "oom.device" and made["wall_s"] < 15


# --- devices


def spans(launcher):
    return [(handle.started_s, handle.ended_s, handle.job.devices) for handle in launcher.handles]


def test_forty_cells_on_four_devices(paths):
    summary, launcher = run(
        paths, cells(40), lambda job: Script(duration_s=10 + job.cell.get("seed") % 7, result=RESULT), H200
    )
    assert summary.counts == {"ok": 40}
    done = spans(launcher)
    last_launch, alone = max(start for start, _, _ in done), sum(end - start for start, end, _ in done)
    busy = sum(min(end, last_launch) - start for start, end, _ in done if start < last_launch)
    assert busy / (4 * last_launch) >= 0.95
    assert alone / max(end for _, end, _ in done) >= 3.5
    for index in range(4):
        mine = sorted((start, end) for start, end, devices in done if devices == (index,))
        assert all(end <= start for (_, end), (start, _) in pairwise(mine))


def test_a_cpu_runs_one_at_a_time_and_names_no_device(paths):
    _, launcher = run(paths, cells(3, devices=2))
    done = spans(launcher)
    assert all(first[1] <= second[0] for first, second in pairwise(done))
    assert {devices for _, _, devices in done} == {()}


def test_a_cluster_is_given_every_cell_at_once_and_hands_out_its_own_devices(paths):
    launcher = FakeLauncher(lambda job: OK, is_local=False)
    summary, _ = run(paths, cells(8, devices=8), hardware=H200, launcher=launcher)
    assert summary.counts == {"ok": 8} and summary.busy_share is None
    assert {(started_s, devices) for started_s, _, devices in spans(launcher)} == {(0.0, ())}


def test_devices_used_are_in_the_record(paths):
    planned = cells(1, devices=2)
    run(paths, planned, hardware=H200)
    assert record(paths, planned[0])["devices_used"] == [0, 1]


def test_an_exclusive_cell_runs_alone_and_the_others_say_beside_whom(paths):
    planned = cells(5)
    run(paths, planned, Script(duration_s=5.0, result=RESULT), H200)
    beside = [record(paths, one)["ran_beside"] for one in planned]
    assert beside[0] == sorted(one.cell.slug for one in planned[1:4]) and beside[4] == []
    alone = cells(5, exclusive=True)
    _, launcher = run(SweepPaths(paths.root / "alone"), alone, hardware=H200)
    assert all(first[1] <= second[0] for first, second in pairwise(spans(launcher)))
    assert {devices for _, _, devices in spans(launcher)} == {(0,)}


def test_how_the_devices_were_used_is_kept(paths, capsys):
    summary, _ = run(paths, cells(8), Script(duration_s=100.0, result=RESULT), H200)
    assert summary.busy_share > 0.99 and 3.9 < summary.concurrency <= 4.0
    assert "devices at work 100.0% of" in capsys.readouterr().err
    run(paths, cells(8), resume=True, hardware=H200)
    runs = json.loads(paths.runs.read_text())["runs"]
    assert [one["busy_share"] for one in runs] == [summary.busy_share, None]


class Occupied:
    """Device `device` is not empty after its first cell until `until_s`."""

    def __init__(self, clock, device, until_s):
        self.clock, self.device, self.until_s = clock, device, until_s

    def occupants(self, device):
        return "7.0 GiB in use" if device == self.device and self.clock.now() < self.until_s else None


def test_a_device_is_used_again_once_it_is_empty(paths):
    launcher = FakeLauncher(lambda job: Script(duration_s=5.0, result=RESULT))
    probe = Occupied(launcher.clock, 2, until_s=30.0)
    summary, _ = run(paths, cells(40), launcher=launcher, hardware=H200, probe=probe)
    starts = [start for start, _, devices in spans(launcher) if devices == (2,)]
    assert summary.counts == {"ok": 40} and starts[0] < 1 and 30 <= starts[1] < 31
    assert not summary.notes


def test_a_device_that_does_not_become_empty_is_given_up(paths, capsys):
    planned = [*cells(60), *cells(1, devices=4), *cells(2, devices=2)]
    launcher = FakeLauncher(lambda job: Script(duration_s=5.0 if job.cell.sizes.devices == 1 else 1.0, result=RESULT))
    probe = Occupied(launcher.clock, 2, until_s=1e9)
    summary, _ = run(paths, planned, launcher=launcher, hardware=H200, probe=probe)
    assert [devices for _, _, devices in spans(launcher)].count((2,)) <= 1
    assert summary.counts == {"ok": 63} and len(summary.notes) == 1
    assert "device 2 did not become empty after" in capsys.readouterr().err
    again = [*cells(1, devices=4, seed=70), *cells(1, devices=4, seed=71), *cells(1, seed=72)]
    launcher = FakeLauncher(lambda job: OK)
    probe = Occupied(launcher.clock, 2, until_s=1e9)
    run(paths, again, launcher=launcher, hardware=H200, probe=probe)
    made = record(paths, again[1])
    assert made["reason_code"] == "skipped.devices" and "3 left of 4: device 2" in made["reason"]
    assert record(paths, again[2])["status"] == "ok"


def test_processes_that_cannot_be_killed_keep_their_device(paths):
    planned = cells(8)
    immortal = {planned[0].cell.slug: Script(result=RESULT, pids=(1,))}
    summary, launcher = run(paths, planned, immortal, H200)
    assert summary.counts == {"ok": 8}
    assert [devices for _, _, devices in spans(launcher)].count((0,)) == 1


def test_two_sweeps_share_the_devices(paths, tmp_path, capsys):
    locks, others = Locks(tmp_path / "locks", "abcd"), Locks(tmp_path / "locks", "abcd")
    (tmp_path / "locks").mkdir()
    assert all(others.take(device) for device in range(4))
    launcher = FakeLauncher(lambda job: OK)
    launcher.clock.at(20.0, lambda: others.give_back(1))
    summary, _ = run(paths, cells(2), launcher=launcher, hardware=H200, locks=locks)
    assert summary.counts == {"ok": 2} and {devices for _, _, devices in spans(launcher)} == {(1,)}
    assert launcher.handles[0].started_s >= 20
    assert capsys.readouterr().err.count("another bench") == 1
    assert others.take(1) and others.enter()


def test_a_cold_cache_is_gone_after_its_cell(paths):
    planned = [plan_cell(make_cell(compile="inductor"))]

    def compiles(job):
        job.paths.cache.mkdir(parents=True)
        return OK

    _, launcher = run(paths, planned, compiles)
    assert variables.starts_cold(planned[0].cell)
    assert not launcher.handles[0].job.paths.cache.exists()


# --- interrupts


def interrupted(at, signum):
    """A launcher in whose job number `at` a signal comes to this process."""

    def script(job):
        if len(launcher.handles) == at - 1:
            os.kill(os.getpid(), signum)
        return OK

    launcher = FakeLauncher(script)
    return launcher


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_keeps_what_was_finished(paths, signum, code):
    planned = cells(4)
    handlers = signal.getsignal(signum)
    summary, _ = run(paths, planned, launcher=interrupted(2, signum))
    assert summary.exit_code == code
    assert record(paths, planned[0])["status"] == "ok"
    assert record(paths, planned[1])["reason_code"] == "skipped.interrupted"
    assert not paths.cell(planned[2].cell.slug).record.exists()
    assert summary.counts == {"ok": 1, "skipped": 3}
    assert signal.getsignal(signum) is handlers


def test_outside_the_main_thread_signals_are_left_alone(paths):
    summaries = []
    thread = threading.Thread(target=lambda: summaries.append(run(paths, cells(1))[0]))
    thread.start()
    thread.join()
    assert summaries[0].exit_code == 0


# --- resume


def test_resume_keeps_verdicts_and_runs_the_others_again(paths):
    planned = cells(4)
    oom, bad, hung = Script(errors={0: PARAMETERS | {"kind": "oom"}}), Script(exits={0: 3}), Script(hangs=True)
    first = dict(zip((one.cell.slug for one in planned), (OK, oom, bad, hung), strict=True))
    summary, _ = run(paths, planned, first)
    assert summary.exit_code == 2
    summary, launcher = run(paths, planned, resume=True)
    assert [handle.job.cell for handle in launcher.handles] == [planned[2].cell, planned[3].cell]
    assert [record(paths, one)["attempt"] for one in planned] == [1, 1, 2, 2]
    assert summary.counts == {"ok": 3, "oom": 1} and summary.exit_code == 0
    assert paths.cell(planned[2].cell.slug).attempt(1).exits().exists()


def test_resume_runs_what_never_ran(paths):
    planned = cells(4)
    run(paths, planned, launcher=interrupted(2, signal.SIGINT))
    summary, launcher = run(paths, planned, resume=True)
    assert len(launcher.handles) == 3 and summary.counts == {"ok": 4}


def test_resume_takes_over_ranks_that_finished_without_a_record(paths):
    planned = cells(2)
    run(paths, planned)
    paths.cell(planned[0].cell.slug).record.unlink()
    summary, launcher = run(paths, planned, resume=True)
    assert launcher.handles == [] and summary.counts == {"ok": 2}
    made = record(paths, planned[0])
    assert (made["attempt"], made["metrics"]["step_time_median_s"]) == (1, 0.1)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema_version": 99}', "null"])
def test_a_damaged_record_is_named_and_made_again(paths, capsys, text):
    planned = cells(1)
    run(paths, planned, Script(exits={0: 3}))
    paths.cell(planned[0].cell.slug).record.write_text(text)
    summary, launcher = run(paths, planned, OK, resume=True)
    assert len(launcher.handles) == 1 and summary.counts == {"ok": 1}
    said = f"cells/{planned[0].cell.slug}/record.json is damaged"
    assert said in capsys.readouterr().err and summary.notes[0].startswith(said)


@pytest.mark.parametrize("text", ["", "{", "[]"])
def test_a_damaged_environment_is_named_and_replaced_by_what_a_record_knows(paths, text):
    planned = cells(2)
    run(paths, planned, {planned[0].cell.slug: Script(exits={0: 3})})
    paths.environment.write_text(text)
    other = ENVIRONMENT | {"versions": {"torch": "2.11.0"}}
    with pytest.raises(SweepDirError, match=r"torch 2\.13\.0, here 2\.11\.0"):
        run(paths, planned, resume=True, environment=other)
    paths.environment.write_text(text)
    summary, _ = run(paths, planned, resume=True)
    assert summary.counts == {"ok": 2}
    assert summary.notes[0].startswith("environment.json is damaged and was replaced")
    assert json.loads(paths.environment.read_text())["versions"] == ENVIRONMENT["versions"]


def test_devices_that_have_come_back_are_used(paths):
    planned = [plan_cell(make_cell(strategy="ddp"), "skipped", "skipped.devices", "needs 2 devices")]
    assert run(paths, planned, hardware=CPU)[0].exit_code == 4
    summary, _ = run(paths, planned, resume=True, hardware=H200)
    assert summary.counts == {"ok": 1}


def test_resume_refuses_other_software_unless_told_to_mix(paths):
    planned = cells(2)
    run(paths, planned, {planned[0].cell.slug: Script(exits={0: 3})})
    other = ENVIRONMENT | {"versions": {"torch": "2.11.0"}}
    with pytest.raises(SweepDirError, match=r"torch 2.13.0, here 2.11.0.*--mix"):
        run(paths, planned, resume=True, environment=other)
    run(paths, planned, resume=True, environment=other, mix=True)
    mixed, kept = record(paths, planned[0]), record(paths, planned[1])
    assert mixed["flags"] == ["mixed_environment"] and mixed["environment"]["versions"]["torch"] == "2.11.0"
    assert kept["flags"] == []


def test_a_sweep_is_run_by_one_bench_at_a_time(paths):
    with filelock.FileLock(paths.lock), pytest.raises(SweepDirError, match="another bench"):
        run(paths, cells(1))


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        (Selection(statuses=frozenset({"failed"})), [2]),
        (Selection(statuses=frozenset({"timeout", "failed"})), [2, 3]),
        (Selection(cells=("*seed-3*",)), [3]),
        (Selection(statuses=frozenset({"failed"}), cells=("*seed-3*",)), []),
        (Selection(cells=("*seed-0*",)), []),
    ],
)
def test_resume_runs_only_what_was_chosen(paths, chosen, expected):
    planned = cells(5)
    scripts = {planned[2].cell.slug: Script(exits={0: 3}), planned[3].cell.slug: Script(hangs=True)}
    run(paths, planned[:4], scripts)
    _, launcher = run(paths, planned, resume=True, selection=chosen)
    assert [handle.job.cell.get("seed") for handle in launcher.handles] == expected
    assert not paths.cell(planned[4].cell.slug).record.exists()


def test_a_cell_is_chosen_by_its_id(paths):
    planned = cells(3)
    run(paths, planned, selection=Selection(cells=(planned[1].cell.cell_id,)))
    assert [paths.cell(one.cell.slug).record.exists() for one in planned] == [False, True, False]


def test_earlier_attempts_are_told(paths):
    planned = cells(1)
    run(paths, planned, Script(exits={0: 3}))
    run(paths, planned, Script(exits={0: -9}), resume=True)
    run(paths, planned, resume=True)
    earlier = record(paths, planned[0])["earlier_attempts"]
    assert [(one["attempt"], one["reason_code"]) for one in earlier] == [(1, "failed.exit"), (2, "failed.signal")]


# --- retries and the brake

BROKEN = Script(errors={0: PARAMETERS | {"message": "CUDA error: uncorrectable ECC error encountered"}}, exits={0: 1})
TAKEN = Script(errors={0: PARAMETERS | {"message": "The server socket: EADDRINUSE"}}, exits={0: 1})


def first_attempt_ends(script):
    return lambda job: script if job.attempt == 1 else OK


def test_a_failure_of_infrastructure_is_tried_again(paths, capsys):
    planned = cells(2)
    summary, launcher = run(paths, planned, first_attempt_ends(TAKEN))
    assert summary.counts == {"ok": 2} and summary.exit_code == 0
    assert [handle.job.attempt for handle in launcher.handles] == [1, 2, 1, 2]
    made = record(paths, planned[0])
    assert made["attempt"] == 2 and made["earlier_attempts"][0]["reason_code"] == "failed.infrastructure"
    assert capsys.readouterr().err.count("trying again (1 of 1)") == 2


@pytest.mark.parametrize(("retries", "attempts"), [(0, 1), (1, 2), (3, 4)])
def test_retries_are_bounded(paths, retries, attempts):
    planned = cells(1, retries=retries)
    summary, launcher = run(paths, planned, TAKEN)
    assert len(launcher.handles) == attempts and summary.counts == {"failed": 1}
    made = record(paths, planned[0])
    assert made["reason_code"] == "failed.infrastructure" and len(made["earlier_attempts"]) == attempts - 1


def test_other_failures_are_not_tried_again(paths):
    for number, script in enumerate([Script(errors={0: PARAMETERS}), Script(exits={0: -9}), Script(hangs=True)]):
        _, launcher = run(SweepPaths(paths.root / str(number)), cells(1), script)
        assert len(launcher.handles) == 1


def test_a_device_that_failed_is_given_up(paths):
    launcher = FakeLauncher(lambda job: BROKEN if 1 in job.devices else OK)
    summary, _ = run(paths, cells(12), launcher=launcher, hardware=H200)
    assert summary.counts == {"ok": 12} and "device 1 failed under" in summary.notes[0]
    assert [devices for _, _, devices in spans(launcher)].count((1,)) == 1


def test_the_brake_stops_the_sweep_and_keeps_every_verdict(paths, capsys):
    planned = cells(12, brake=3)
    bad = {one.cell.slug: Script(errors={0: PARAMETERS}) for one in planned[2:]}
    summary, launcher = run(paths, planned, bad)
    assert len(launcher.handles) == 5 and summary.exit_code == 2 and summary.stopped_by == "brake"
    assert summary.counts == {"ok": 2, "failed": 3, "skipped": 7}
    made = record(paths, planned[11])
    assert made["reason_code"] == "skipped.brake" and "the same failure in 3 cells" in made["reason"]
    assert "7 cells were not started" in capsys.readouterr().err
    summary, launcher = run(paths, planned, resume=True)
    assert len(launcher.handles) == 10 and summary.counts == {"ok": 12}


def test_cells_that_run_when_the_brake_is_pulled_reach_their_end(paths):
    planned = cells(8, brake=2)
    bad = Script(errors={0: PARAMETERS})
    scripts = {one.cell.slug: Script(duration_s=9, result=RESULT) for one in planned[2:]}
    summary, _ = run(paths, planned, {planned[0].cell.slug: bad, planned[1].cell.slug: bad} | scripts, H200)
    assert summary.counts["failed"] == 2 and summary.counts["ok"] >= 2
    assert sum(summary.counts.values()) == 8


def test_a_verdict_from_before_is_not_overwritten_by_a_cell_that_is_not_started(paths):
    planned = cells(4, brake=2)
    run(paths, planned, {planned[3].cell.slug: Script(exits={0: -11})})
    before = record(paths, planned[3])
    for one in planned[:3]:
        paths.cell(one.cell.slug).record.unlink()
        paths.cell(one.cell.slug).attempt(1).rank(0).unlink()
    summary, _ = run(paths, planned, Script(errors={0: PARAMETERS}), resume=True)
    assert summary.stopped_by == "brake" and record(paths, planned[3]) == before


# --- a micro-batch that decides others

OOM = Script(errors={0: PARAMETERS | {"kind": "oom", "message": "CUDA out of memory"}}, exits={0: 1})


def batches(*sizes, **leaves):
    return [plan_cell(make_cell(leaves={"micro_batch_size": size} | leaves)) for size in sizes]


def does_not_fit(limit):
    return lambda job: OOM if job.cell.get("micro_batch_size") >= limit else OK


def test_a_smaller_batch_that_ran_out_of_memory_decides_the_larger_ones(paths):
    planned = [*batches(16, 1, 8, 2, 4), *batches(8, 16, seed=1)]
    summary, launcher = run(paths, planned, does_not_fit(4))
    assert summary.counts == {"ok": 2, "oom": 5} and summary.exit_code == 0
    ran = [(handle.job.cell.get("micro_batch_size"), handle.job.cell.get("seed")) for handle in launcher.handles]
    assert ran == [(1, 0), (8, 1), (2, 0), (4, 0)]
    made = record(paths, planned[0])
    assert (made["status"], made["reason_code"], made["attempt"]) == ("oom", "oom.device", 0)
    assert "inferred" in made["flags"] and planned[4].cell.slug in made["reason"]
    assert made["evidence"]["inferred_from"] == planned[4].cell.slug


def test_inference_can_be_refused_and_taken_back(paths):
    planned = batches(1, 2, 4)
    run(paths, planned, does_not_fit(2))
    assert run(paths, planned, resume=True)[1].handles == []
    _, launcher = run(paths, planned, resume=True, infer=False)
    assert [handle.job.cell.get("micro_batch_size") for handle in launcher.handles] == [4]
    assert record(paths, planned[2])["status"] == "ok"
    _, launcher = run(SweepPaths(paths.root / "all"), planned, does_not_fit(2), infer=False)
    assert len(launcher.handles) == 3


def test_a_verdict_from_before_decides_too_but_not_one_under_a_fault(paths):
    first, more = batches(2), batches(2, 4)
    run(paths, first, OOM)
    assert run(paths, more, resume=True)[0].counts == {"oom": 2}
    other = SweepPaths(paths.root / "other")
    run(other, first, OOM, fault="oom")
    assert len(run(other, more, OK, resume=True)[1].handles) == 2


@pytest.mark.parametrize(
    "script", [Script(errors={0: PARAMETERS | {"type": "MemoryError", "kind": "oom"}}), Script(exits={0: -9})]
)
def test_only_device_memory_decides(paths, script):
    planned = batches(1, 2)
    _, launcher = run(paths, planned, {planned[0].cell.slug: script})
    assert len(launcher.handles) == 2


# --- a budget


def test_a_budget_ends_in_a_valid_partial_report(paths, capsys):
    planned = cells(20)
    summary, launcher = run(paths, planned, Script(duration_s=30.0, result=RESULT), budget_s=120.0)
    assert launcher.clock.now() <= 120 and 2 <= len(launcher.handles) <= 4
    assert summary.counts == {"ok": len(launcher.handles), "skipped": 20 - len(launcher.handles)}
    assert summary.exit_code == 0
    made = record(paths, planned[-1])
    assert made["reason_code"] == "skipped.budget" and "of the budget of 120 s" in made["reason"]
    assert "do not fit the budget" in capsys.readouterr().err
    summary, _ = run(paths, planned, resume=True)
    assert summary.counts == {"ok": 20}


def test_a_cell_at_work_long_after_the_budget_is_ended(paths):
    planned = cells(1)
    _, launcher = run(paths, planned, Script(hangs=True, beats_until_s=1e6), budget_s=100.0)
    made = record(paths, planned[0])
    assert (made["status"], made["reason_code"]) == ("skipped", "skipped.budget")
    assert 160 <= launcher.clock.now() < 165


def test_a_budget_shows_every_value_before_it_repeats_one(paths):
    planned = [
        plan_cell(make_cell(precision=precision, compile=compiler, leaves={"seed": seed}))
        for precision in ("bf16", "fp32", "bf16-mixed")
        for compiler in ("eager", "inductor")
        for seed in (0, 1)
    ]
    _, launcher = run(paths, planned, budget_s=1e6)
    first = [handle.job.cell for handle in launcher.handles[:3]]
    assert {cell.axes["precision"] for cell in first} == {"bf16", "fp32", "bf16-mixed"}
    assert {cell.axes["compile"] for cell in first} == {"eager", "inductor"} and {c.get("seed") for c in first} == {
        0,
        1,
    }


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


def test_a_verdict_under_a_fault_is_not_kept_without_it(paths):
    planned = cells(1)
    run(paths, planned, fault="grandchild")
    assert run(paths, planned, resume=True, fault="grandchild")[1].handles == []
    _, launcher = run(paths, planned, resume=True)
    assert len(launcher.handles) == 1 and record(paths, planned[0])["fault"] is None
    assert run(paths, planned, resume=True, fault="hang")[1].handles == []


def test_a_wrong_fault_starts_nothing(paths):
    with pytest.raises(ConfigError):
        run(paths, cells(1), fault="hangs")
    assert list(paths.root.iterdir()) == []


# --- progress


def test_a_line_a_finished_cell_on_stderr(paths, capsys):
    run(paths, cells(2))
    out, err = capsys.readouterr()
    assert out == "" and err.count("ok  ") == 2 and "1/2 done" in err
