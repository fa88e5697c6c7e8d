import json

import pytest

from benchrunner.launch.fake import FakeLauncher, Script, VirtualClock
from benchrunner.outcome.evidence import Stop
from benchrunner.run.attempts import Attempts
from benchrunner.run.options import RunOptions
from benchrunner.run.schedule import Pool
from benchrunner.run.watch import Running, describe_running
from fake_sweeps import ERROR, RESULT, cells, record, run
from samples import CPU


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


def test_limits_count_from_the_start_of_the_job_and_not_of_the_clock(paths):
    planned = cells(1, devices=2)
    launcher = FakeLauncher(lambda job: Script(duration_s=20.0, result=RESULT))
    launcher.clock = VirtualClock(now_s=1e6)
    script_of = launcher.start

    def start(job):
        handle = script_of(job)
        for rank in range(2):
            job.paths.rank(rank).unlink()  # as long as its ranks import torch
        return handle

    launcher.start = start
    run(paths, planned, launcher=launcher)
    assert record(paths, planned[0])["status"] == "ok"


def test_steps_are_progress(paths):
    planned = cells(1, **{"limits.measure_s": 20.0})
    run(paths, planned, Script(duration_s=100.0, beat_every_s=5.0, result=RESULT))
    assert record(paths, planned[0])["status"] == "ok"


def test_drawing_data_is_progress_and_no_step(paths):
    planned = cells(1, **{"limits.measure_s": 20.0})
    run(paths, planned, Script(hangs=True, beat_every_s=5.0, beats_until_s=50.0, only_draws=True))
    made = record(paths, planned[0])
    assert made["evidence"]["ranks"][0]["steps"] == 0 and made["wall_s"] >= 70


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


def running(paths, launcher, **leaves):
    (planned,) = cells(1, **leaves)
    job = Attempts(paths, CPU, RunOptions(fault=None), Pool(1), names_devices=False).next_job(planned, (0,))
    return Running(planned=planned, job=job, handle=launcher.start(job), places=(0,), started_s=0.0)


def watched(paths, script, seconds, **leaves):
    """A cell at work, looked at every half second for so long, or until it is to be ended; and the clock."""
    launcher = FakeLauncher(lambda job: script)
    run = running(paths, launcher, **leaves)
    while run.stop is None and launcher.clock.now() < seconds:
        run.step(launcher.clock.now())
        launcher.clock.sleep(0.5)
    return run, launcher.clock


def test_ranks_that_left_without_a_word_are_named_after_ten_seconds(paths):
    run, clock = watched(paths, Script(hangs=True, pids=(2,)), 30.0)
    assert (run.stop, clock.now()) == (Stop(kind="stuck", gone=frozenset({0})), 11.0)
    run, _ = watched(paths, Script(hangs=True, pids=(1,)), 30.0)
    assert run.stop is None, "its process is there"


def test_what_a_hang_was_ended_for_is_told_and_its_stacks_are_dumped_before(paths):
    run, clock = watched(paths, Script(hangs=True, pids=(2,)), 30.0, **{"limits.measure_s": 7.0})
    assert run.stop == Stop(kind="timeout", limit_s=7.0, phase="measure", gone=frozenset({0}))
    dumped_s = clock.now() - 0.5
    assert (run.handle.num_dumps, dumped_s) == (1, 7.5)
    for seconds, ended_s in ((0.5, None), (1.0, dumped_s + 1.0)):
        clock.sleep(dumped_s + seconds - clock.now())
        run.step(clock.now())
        assert run.handle.ended_s == ended_s


def test_a_cell_is_ended_when_its_whole_time_is_over(paths):
    run, clock = watched(paths, Script(hangs=True, beats_until_s=30.0), 30.0, timeout_s=7.0)
    assert (run.stop, clock.now()) == (Stop(kind="timeout", limit_s=7.0), 7.5)


def test_cells_that_ran_at_the_same_time_know_of_each_other(paths):
    launcher = FakeLauncher(lambda job: Script(hangs=True))
    first, second, third = (running(paths, launcher, timeout_s=seconds) for seconds in (1.0, 2.0, 3.0))
    second.meet([first])
    third.meet([second])
    slugs = [run.job.cell.slug for run in (first, second, third)]
    assert [run.beside for run in (first, second, third)] == [{slugs[1]}, {slugs[0], slugs[2]}, {slugs[1]}]


def test_a_rank_that_began_too_late_to_be_seen_may_still_be_read(paths):
    launcher = FakeLauncher(lambda job: Script(result=RESULT, unreadable_s=(0.0, 100.0)))
    run = running(paths, launcher)
    found = []
    for seconds in (1.0, 4.9, 0.1):
        launcher.clock.sleep(seconds)
        found.append(run.step(launcher.clock.now()))
    assert found == [None, None, 0]


def test_silence_counts_from_the_first_look_until_the_cell_is_ended(paths):
    launcher = FakeLauncher(lambda job: Script(hangs=True, phases={0: "measure", 1: "warmup"}))
    run = running(paths, launcher, devices=2)
    assert (run.silence_s(100.0), run.silent_phase()) == (0.0, "start")
    assert describe_running(run, 100.0, "ddp") == "ddp", "nothing is known of it yet"
    run.step(100.0)
    assert (run.silence_s(130.0), run.silent_phase()) == (30.0, "warmup")
    run.interrupt()
    assert run.silence_s(130.0) == 0.0


def test_a_job_is_told_to_end_once(paths, monkeypatch):
    run, clock = watched(paths, Script(hangs=True), 30.0, **{"limits.measure_s": 7.0})
    told = []
    monkeypatch.setattr(run.handle, "terminate", lambda: told.append(clock.now()))
    for _ in range(4):
        clock.sleep(0.5)
        run.step(clock.now())
    assert told == [8.5]


def test_a_job_that_is_interrupted_while_its_stacks_are_dumped_ends_at_once(paths):
    run, clock = watched(paths, Script(hangs=True), 30.0, **{"limits.measure_s": 7.0})
    run.interrupt()
    assert run.handle.ended_s == clock.now() and run.stop.kind == "timeout"
    assert run.step(clock.now() + 5.0) == -15


def test_a_job_that_lives_on_after_an_interrupt_is_looked_at_no_more(paths, monkeypatch):
    run, clock = watched(paths, Script(hangs=True), 3.0)
    monkeypatch.setattr(run.handle, "kill", lambda: None)
    run.interrupt("budget")
    clock.sleep(100.0)
    assert run.step(clock.now()) is None and run.stop == Stop(kind="budget")


def test_what_the_kernel_and_the_job_say_is_evidence(paths):
    run, _ = watched(paths, Script(exits={0: -9}, num_oom_kills=2), 3.0)
    evidence = run.evidence(1)
    assert (evidence.code, evidence.num_oom_kills, evidence.exits) == (1, 2, {0: -9})


def test_a_count_of_steps_that_is_gone_for_a_while_is_no_progress(paths):
    launcher = FakeLauncher(lambda job: Script(hangs=True, beats_until_s=3.0))
    run = running(paths, launcher)
    beat = run.job.paths.beat(0)
    for now_s in range(20):
        run.step(launcher.clock.now())
        if now_s == 10:
            counted = beat.read_bytes()
            beat.unlink()
        if now_s == 12:
            beat.write_bytes(counted)
        launcher.clock.sleep(1.0)
    assert run.silence_s(launcher.clock.now()) == 17.0


def test_a_rank_that_is_done_has_only_to_leave(paths):
    launcher = FakeLauncher(lambda job: Script(duration_s=2.0, result=RESULT))
    run = running(paths, launcher)
    run.step(0.5)
    assert run.silent_phase() == "measure"
    path = run.job.paths.rank(0)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"state": "done"}))
    run.step(1.0)
    assert run.silent_phase() == "teardown"


@pytest.mark.parametrize(("pauses", "stopped_s"), [((), 20), ((10,), 35), ((10, 15), 46)])
def test_a_pause_of_everything_is_no_silence_of_the_ranks_but_only_once(paths, pauses, stopped_s):
    launcher = FakeLauncher(lambda job: Script(hangs=True, phase="build"))
    run = running(paths, launcher, **{"limits.build_s": 20.0})
    for second in range(60):
        run.step(launcher.clock.now())
        if run.stop is not None:
            break
        launcher.clock.sleep(16.0 if second in pauses else 1.0)
    assert stopped_s <= launcher.clock.now() <= stopped_s + 3


def silences(paths, script, seconds, **leaves):
    """What is said of a running cell, second by second."""
    launcher = FakeLauncher(lambda job: script)
    run = running(paths, launcher, **leaves)
    said = []
    for _ in range(seconds):
        run.step(launcher.clock.now())
        said.append(describe_running(run, launcher.clock.now()))
        launcher.clock.sleep(1.0)
    return run.job.cell.slug, said


def test_a_cell_without_a_sign_of_life_is_said_to_be_so(paths):
    slug, said = silences(paths, Script(hangs=True, phase="build"), 40, **{"limits.build_s": 100.0})
    assert said[1] == f"{slug} (building 0:00)" and said[30].startswith(f"{slug} (building 0:")
    assert said[31] == f"{slug} (no sign of life for 30 of 100 s, in build)" and "for 38 of 100 s" in said[-1]


def test_a_cell_that_goes_on_is_not(paths):
    _, said = silences(paths, Script(duration_s=200.0, beat_every_s=20.0), 100)
    assert all("no sign of life" not in one for one in said)


def test_a_queue_that_is_not_ours_costs_no_time(paths):
    planned = cells(1, timeout_s=30.0)
    run(paths, planned, Script(queued_s=100.0, duration_s=110.0, result=RESULT))
    assert record(paths, planned[0])["status"] == "ok"


def test_a_job_whose_rank_failed_does_not_linger(paths):
    planned = cells(1, devices=2)
    run(paths, planned, Script(hangs=True, phase="build", errors={1: ERROR | {"kind": "oom"}}))
    made = record(paths, planned[0])
    assert made["reason_code"] == "oom.device" and made["wall_s"] < 15


@pytest.mark.parametrize("end_s", [9.0, 30.0])
def test_a_job_whose_rank_failed_has_ten_seconds_to_end_by_itself(paths, end_s):
    """torchrun is ending the others; what they leave behind meanwhile is evidence."""
    launcher = FakeLauncher(lambda job: Script(hangs=True, errors={1: ERROR}))
    (planned,) = cells(1, devices=2)
    attempts = Attempts(paths, CPU, RunOptions(fault=None), Pool(1), names_devices=False)
    job = attempts.next_job(planned, (0,))
    run = Running(planned=planned, job=job, handle=launcher.start(job), places=(0,), started_s=0.0)
    while (code := run.step(launcher.clock.now())) is None and launcher.clock.now() < end_s:
        launcher.clock.sleep(0.5)
    if end_s < 10:
        assert (code, run.stop) == (None, None)
    else:
        assert run.stop.kind == "stuck" and 10 <= launcher.handles[0].ended_s < 12


# --- what cannot be read for a while


@pytest.mark.parametrize("unreadable_s", [(5.0, 6.2), (5.0, 14.0), (39.0, 43.0)], ids=["a moment", "9 s", "at its end"])
def test_a_file_that_cannot_be_read_for_a_while_is_no_death(paths, unreadable_s):
    planned = cells(1)
    run(paths, planned, Script(duration_s=40.0, result=RESULT, unreadable_s=unreadable_s))
    assert record(paths, planned[0])["status"] == "ok"


def test_a_file_that_cannot_be_read_now_and_then_is_no_death(paths):
    planned = cells(2)
    moments = [(2.0, 9.0), (11.0, 20.0)]
    scripts = [Script(duration_s=22.0, result=RESULT, unreadable_s=moment) for moment in moments]
    launcher = FakeLauncher(lambda job: scripts[0])
    job_of = Attempts(paths, CPU, RunOptions(fault=None), Pool(1), names_devices=False).next_job
    job = job_of(planned[0], (0,))
    run = Running(planned=planned[0], job=job, handle=launcher.start(job), places=(0,), started_s=0.0)
    while (code := run.step(launcher.clock.now())) is None:
        launcher.clock.sleep(0.5)
        if launcher.clock.now() == 10.0:
            assert run.failed_s is None
            run.handle.script = scripts[1]
    assert (code, run.stop) == (0, None)


def test_a_file_that_stays_unreadable_is(paths):
    planned = cells(1)
    run(paths, planned, Script(duration_s=100.0, result=RESULT, unreadable_s=(5.0, 200.0)))
    made = record(paths, planned[0])
    assert made["reason_code"] == "failed.garbage" and 15 <= made["wall_s"] < 22


def test_a_file_that_comes_and_goes_is_no_progress(paths):
    """A hang is found at its limit, whatever its files do meanwhile."""
    planned = cells(1, **{"limits.measure_s": 20.0})
    run(paths, planned, Script(hangs=True, beat_every_s=1.0, beats_until_s=3.0, unreadable_s=(15.0, 20.0)))
    made = record(paths, planned[0])
    assert made["reason_code"] == "timeout.measure" and made["wall_s"] < 27
