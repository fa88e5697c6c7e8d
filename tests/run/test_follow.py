import json
import os
import signal
from dataclasses import replace
from datetime import datetime
from itertools import pairwise

import filelock
import pytest

from benchrunner.core.errors import ConfigError, SweepDirError, UsageError
from benchrunner.core.record import record_to_dict
from benchrunner.launch.allocation import JobState
from benchrunner.launch.fake import Script
from benchrunner.plan.labels import short_labels
from benchrunner.run import interrupts
from benchrunner.run.follow import CANCEL_LIMIT_S, POLL_INTERVAL_S, Follower, Following, follow_plan
from benchrunner.run.options import RunOptions
from benchrunner.run.progress import Progress
from benchrunner.run.resume import Selection
from benchrunner.run.searches import Searches
from benchrunner.store.allocations_file import read_jobs
from benchrunner.store.runs import read_runs
from fake_sweeps import ERROR, OOM, RESULT, cells, record
from samples import make_cell, make_record, plan_cell
from shared_sweeps import Cluster, measured

SLURM = {"launcher.name": "slurm"}


class FakeCluster:
    """A scheduler whose allocations are loops on the virtual clock; `fate(job number, seconds)` ends one."""

    def __init__(self, paths, planned, fate=lambda number, age_s: None, waits_s=5.0, script=None):
        self.cluster = Cluster(paths, planned, *filter(None, [script]))
        self.fate, self.waits_s = fate, waits_s
        self.jobs, self.cancelled, self.requests = {}, [], []
        self.on_sleep = lambda: None

    # --- the seam

    def submit(self, sweep, request):
        job = str(100 + len(self.jobs))
        self.jobs[job] = {"since": self.now(), "worker": None, "end": None, "round": request.command}
        self.requests.append(request)
        return job

    def poll(self, sweep, jobs):
        return {job: self._state(job) for job in jobs}

    def cancel(self, sweep, jobs):
        for job in jobs:
            self.cancelled.append(job)
            if self.jobs[job]["worker"]:
                self.jobs[job]["worker"].leave()
            self.jobs[job]["end"] = self.jobs[job]["end"] or "cancelled"

    def logs(self, sweep, job):
        return "slurmstepd: error\n"

    def _state(self, job):
        one = self.jobs.get(job, {"end": "unknown"})
        if one["end"]:
            return JobState(phase="ended", end=one["end"])
        return JobState(phase="running" if one["worker"] else "waiting", detail="" if one["worker"] else "Resources")

    # --- the clock of who follows

    def now(self):
        return self.cluster.clock.now()

    def sleep(self, seconds):
        self.on_sleep()
        end = self.now() + seconds
        while self.now() < end:
            self._turn()
            self.cluster.step()

    def _turn(self):
        for number, (job, one) in enumerate(self.jobs.items()):
            if one["end"] is None and one["worker"] is None and self.now() >= one["since"] + self.waits_s:
                number_of_round = int(next(w for w in one["round"] if w.startswith("--round=")).partition("=")[2])
                one["worker"] = self.cluster.add(job=job, round=number_of_round)
            elif one["worker"] and one["end"] is None:
                end = self.fate(number, self.now() - one["since"])
                if end:
                    one["worker"].die()
                one["end"] = end or (None if one["worker"].is_here else "completed")


def planned_cells(count, jobs=2):
    return cells(count, **SLURM, **{"launcher.jobs": jobs})


def follow(paths, planned, fake, how=Following(), **options):  # noqa: B008
    settings = RunOptions(clock=fake, fault=None, **options)
    return follow_plan(fake.cluster.plan, paths, fake, settings, how)


def statuses(paths, planned):
    return [record(paths, one)["status"] for one in planned]


def codes(paths, planned):
    return {record(paths, one)["reason_code"] for one in planned}


def test_few_jobs_run_all_cells_and_leave_nothing(paths):
    planned = planned_cells(12)
    fake = FakeCluster(paths, planned)
    summary = follow(paths, planned, fake)
    assert statuses(paths, planned) == ["ok"] * 12 and summary.exit_code == 0
    assert len(fake.jobs) == 2 and all(one["end"] for one in fake.jobs.values())
    assert read_jobs(paths, "slurm") == ["100", "101"]


def test_the_time_is_the_plans_estimate_unless_it_is_given(paths):
    fake = FakeCluster(paths, cells(40, **SLURM))
    follow(paths, None, fake)
    fewer = FakeCluster(type(paths)(paths.root / "b"), cells(10, **SLURM))
    follow(fewer.cluster.paths, None, fewer)
    given = FakeCluster(type(paths)(paths.root / "c"), cells(10, **SLURM, **{"launcher.time_min": 7}))
    follow(given.cluster.paths, None, given)
    assert fake.requests[0].time_min > fewer.requests[0].time_min > given.requests[0].time_min == 7


@pytest.mark.parametrize("end", ["preempted", "node_failed", "time_limit"])
def test_an_allocation_that_is_taken_away_costs_its_running_cells_and_another_one_is_asked_for(paths, end):
    planned = planned_cells(10, jobs=1)
    fake = FakeCluster(paths, planned, lambda number, age_s: end if number == 0 and age_s > 9 else None)
    summary = follow(paths, planned, fake)
    assert statuses(paths, planned) == ["ok"] * 10 and summary.exit_code == 0 and len(fake.jobs) == 2
    assert [record(paths, one)["attempt"] for one in planned].count(2) == 1


@pytest.mark.parametrize(
    ("end", "code", "exit_code"),
    [
        ("cancelled", "skipped.cancelled", 2),
        ("failed", "failed.allocation", 2),
        ("time_limit", "skipped.time_limit", 2),
        ("preempted", "skipped.preempted", 2),
        ("node_failed", "failed.node", 2),
        ("unknown", "failed.allocation", 2),
    ],
)
def test_every_end_has_a_verdict_of_its_own(paths, end, code, exit_code):
    planned = planned_cells(3, jobs=1)
    fake = FakeCluster(paths, planned, lambda number, age_s: end if age_s > 5.2 else None)
    summary = follow(paths, planned, fake)
    assert codes(paths, planned) == {code} and summary.exit_code == exit_code
    assert len(fake.jobs) <= 3


@pytest.mark.parametrize(
    ("said", "clean"),
    [
        ("slurmstepd: error: *** JOB 7 ON a1 CANCELLED AT 2026-11-21T10:00:00 ***", "*** JOB 7 ON <host> CANCELLED"),
        ("slurmstepd-a1: error: x", "slurmstepd-<host>: error: x"),
        ("srun: error: a[1-2]: tasks 0-1: Killed", "srun: error: <host>: tasks 0-1: Killed"),
        ("srun: error: Node failure on a1", "srun: error: Node failure on <host>"),
    ],
)
def test_what_slurm_says_of_nodes_names_none_in_records_and_logs(paths, said, clean):
    planned = planned_cells(1, jobs=1)
    fake = FakeCluster(paths, planned, lambda number, age_s: "failed" if age_s > 5.2 else None)
    log = paths.root / "allocations" / "100.log"
    log.parent.mkdir(parents=True)
    log.write_text(f"\udcff\n{said}\n", errors="surrogateescape")
    fake.logs = lambda sweep, job: log.read_text(errors="replace")
    follow(paths, planned, fake)
    assert clean in log.read_text(errors="replace") and log.read_bytes().startswith(b"\xff\n")
    assert clean in record(paths, planned[0])["reason"]


def test_jobs_that_can_never_start_are_cancelled_and_said(paths):
    planned = planned_cells(2, jobs=2)
    fake = FakeCluster(paths, planned, waits_s=1e9)
    hopeless = JobState(phase="waiting", detail="PartitionTimeLimit", is_hopeless=True)
    fake.poll = lambda sweep, jobs: dict.fromkeys(jobs, hopeless)
    with pytest.raises(UsageError, match=r"ever has \(PartitionTimeLimit\).*launcher.time_min"):
        follow(paths, planned, fake)
    assert fake.cancelled == ["100", "101"]


def test_a_job_that_waits_is_waited_for(paths):
    planned = planned_cells(2, jobs=1)
    fake = FakeCluster(paths, planned, waits_s=5000.0)
    fake.cluster.step = lambda seconds=0.25, step=fake.cluster.step: step(2.0)
    assert follow(paths, planned, fake).counts == {"ok": 2}


def test_an_interrupt_cancels_everything_and_resume_finishes_it(paths):
    planned = planned_cells(8)
    fake = FakeCluster(paths, planned)
    fake.on_sleep = lambda: fake.cancelled or (7 < fake.now() <= 8 and os.kill(os.getpid(), signal.SIGINT))
    summary = follow(paths, planned, fake)
    assert summary.exit_code == 130 and set(fake.cancelled) == {"100", "101"}
    before = {one.cell.slug: record(paths, one) for one in planned if record(paths, one)["status"] == "ok"}
    assert 0 < len(before) < 8 and codes(paths, planned) == {None, "skipped.interrupted"}
    again = FakeCluster(paths, planned)
    assert follow(paths, planned, again, resume=True).counts == {"ok": 8}
    assert all(record(paths, one) == before.get(one.cell.slug, record(paths, one)) for one in planned)


def test_jobs_of_a_bench_that_died_are_adopted(paths):
    planned = planned_cells(8)
    fake = FakeCluster(paths, planned)
    assert follow(paths, planned, fake, Following(detach=True)) is None
    fake.sleep(7.0)
    summary = follow(paths, planned, fake, resume=True)
    assert summary.counts == {"ok": 8} and len(fake.jobs) == 2


def test_nothing_is_submitted_while_the_cluster_does_not_answer(paths):
    planned = planned_cells(2)
    fake = FakeCluster(paths, planned)
    follow(paths, planned, fake, Following(detach=True))
    fake.poll = lambda sweep, jobs: {}
    with pytest.raises(UsageError, match="does not answer"):
        follow(paths, planned, fake, resume=True)
    assert len(fake.jobs) == 2


def test_watching_changes_nothing(paths):
    planned = planned_cells(4)
    fake = FakeCluster(paths, planned)
    follow(paths, planned, fake, Following(detach=True))
    summary = follow(paths, planned, fake, Following(only_watch=True))
    assert summary.counts == {"ok": 4} and fake.cancelled == [] and not paths.runs.exists()


def test_only_what_is_selected_runs_again(paths):
    planned = planned_cells(4, jobs=1)
    fake = FakeCluster(paths, planned, lambda number, age_s: "cancelled" if age_s > 5.2 else None)
    follow(paths, planned, fake)
    again = FakeCluster(paths, planned)
    follow(paths, planned, again, resume=True, selection=Selection(cells=(planned[1].cell.slug,)))
    assert [one == "ok" for one in statuses(paths, planned)] == [False, True, False, False]


def test_what_the_plan_ruled_out_is_in_the_tables(paths):
    ruled = plan_cell(make_cell(precision="nf4", leaves=SLURM), "unsupported", "rule.nf4", "nf4 cannot train")
    planned = [*planned_cells(2), ruled]
    fake = FakeCluster(paths, planned)
    assert follow(paths, planned, fake).counts == {"ok": 2, "unsupported": 1}


def test_an_allocation_that_failed_after_it_had_run_cells_is_replaced(paths):
    planned = planned_cells(10, jobs=1)
    fake = FakeCluster(paths, planned, lambda number, age_s: "failed" if number == 0 and age_s > 9 else None)
    assert follow(paths, planned, fake).counts == {"ok": 10} and len(fake.jobs) == 2


def test_every_process_of_a_repeated_cell_is_followed_to_its_end(paths):
    planned = cells(3, **SLURM, **{"launcher.jobs": 2}, repeats=3)
    fake = FakeCluster(paths, planned)
    assert follow(paths, planned, fake).counts == {"ok": 3}
    assert measured(fake.cluster) == {one.place: 1 for one in fake.cluster.plan.processes()}


def test_for_processes_that_nobody_would_start_nothing_is_submitted(paths):
    planned = cells(1, **SLURM, repeats=2)
    oom = Script(errors={0: ERROR | {"kind": "oom", "message": "CUDA out of memory"}}, exits={0: 1})
    follow(paths, planned, FakeCluster(paths, planned, script=lambda job: oom))
    again = FakeCluster(paths, planned)
    assert follow(paths, planned, again, resume=True).counts == {"oom": 1} and again.jobs == {}


def test_workers_are_told_what_the_command_chose(paths):
    fake = FakeCluster(paths, planned_cells(1))
    follow(paths, None, fake, repeats=2, overrides=("timeout_s=7",), infer=False)
    assert {"timeout_s=7", "--repeats=2", "--no-infer"} <= set(fake.requests[0].command)


def test_what_becomes_of_cells_is_in_the_events_and_may_fail_the_run(paths):
    planned = planned_cells(2, jobs=1)
    fake = FakeCluster(paths, planned, lambda number, age_s: "cancelled" if age_s > 6.5 else None)
    events = paths.root / "events"
    summary = follow(paths, planned, fake, events=events, fail_on=("skipped.cancelled",))
    told = [json.loads(line) for line in events.read_text().splitlines()]
    assert [one["event"] for one in told] == ["begin", "finished", "finished", "end"]
    assert (told[0]["num_cells"], told[0]["directory"]) == (2, str(paths.root))
    assert [one["status"] for one in told[1:3]] == ["ok", "skipped"] and told[3]["exit_code"] == summary.exit_code
    assert summary.unwanted == ["skipped.cancelled"]


def test_a_search_is_followed_through_several_allocations(paths):
    leaves = SLURM | {"micro_batch_size": "max", "memory_limit_gib": 4, "retries": 0, "launcher.jobs": 2}
    planned = [plan_cell(make_cell(leaves=leaves))]
    slow, too_large = Script(result=RESULT, duration_s=20.0), replace(OOM, duration_s=20.0)
    fake = FakeCluster(
        paths, planned, fate=lambda number, age_s: "time_limit" if age_s > 50 else None,
        script=lambda job: slow if job.cell.sizes.micro_batch_size <= 5 else too_large,
    )  # fmt: skip
    summary = follow(paths, planned, fake)
    assert summary.counts == {"ok": 5, "oom": 2} and len(fake.jobs) > 2
    assert record(paths, planned[0])["evidence"]["search"]["micro_batch_size"] == 5
    assert set(measured(fake.cluster).values()) <= {0, 1}


# --- what is said meanwhile


def test_what_is_asked_for_and_how_it_stands_is_said_once(paths, capsys):
    planned = planned_cells(40)
    fake = FakeCluster(paths, planned)
    summary = follow(paths, planned, fake)
    said = capsys.readouterr().err.splitlines()
    minutes = fake.requests[0].time_min
    assert said[0] == f"submitted 100, 101: 1 node(s) for {minutes} min each"
    assert said.count("allocations: 2 running") == 1
    assert summary.concurrency > 1.5 and summary.busy_share > 0.5
    runs = read_runs(paths)[0]
    assert datetime.fromisoformat(runs[0].started_at) and runs[0].counts == {"ok": 40}


def test_cells_are_called_by_what_tells_them_apart_with_their_process(paths, monkeypatch, capsys):
    seen = set()

    def report(self, running):
        assert len(running) <= 1, "what waits is not at work"
        seen.update(running)

    monkeypatch.setattr(Progress, "report_running", report)
    planned = cells(2, **SLURM, repeats=2)
    follow(paths, planned, FakeCluster(paths, planned, script=lambda job: Script(result=RESULT, duration_s=12.0)))
    labels = sorted(short_labels(planned).values())
    assert {*labels, *(f"{label} (process 2)" for label in labels)} <= seen
    said = capsys.readouterr().err
    assert all(f"] ok          {label}  " in said for label in labels)


def test_a_scheduler_is_not_asked_all_the_time(paths):
    asked = []
    fake = FakeCluster(paths, planned_cells(40))
    poll = fake.poll
    fake.poll = lambda sweep, jobs: asked.append(fake.now()) or poll(sweep, jobs)
    follow(paths, None, fake)
    assert len(asked) > 3 and all(later - earlier >= POLL_INTERVAL_S for earlier, later in pairwise(asked[:-1]))


def test_jobs_that_are_adopted_are_named_and_where_none_is_left_that_is_said(paths, capsys):
    planned = planned_cells(2)
    fake = FakeCluster(paths, planned)
    follow(paths, planned, fake, Following(only_watch=True))
    assert "no job of this sweep is left" in capsys.readouterr().err and fake.jobs == {}
    follow(paths, planned, fake, Following(detach=True))
    follow(paths, planned, fake, resume=True)
    assert "following jobs 100, 101" in capsys.readouterr().err


def test_why_others_are_asked_for_is_said(paths, capsys):
    planned = planned_cells(10, jobs=1)
    fake = FakeCluster(paths, planned, lambda number, age_s: "preempted" if number == 0 and age_s > 9 else None)
    follow(paths, planned, fake)
    left = next(line for line in capsys.readouterr().err.splitlines() if "asking for more" in line)
    number, _, rest = left.partition(" ")
    assert 0 < int(number) < 10 and rest == "cells are left: asking for more (allocations: 1 ended)"


def test_who_stops_says_so_of_what_was_left_and_names_jobs_that_do_not_end(paths, capsys):
    planned = planned_cells(8)
    fake = FakeCluster(paths, planned, script=lambda job: Script(hangs=True, phase="build"))
    fake.on_sleep = lambda: 7 < fake.now() <= 8 and os.kill(os.getpid(), signal.SIGINT)
    fake.cancel = lambda sweep, jobs: fake.cancelled.extend(jobs)
    summary = follow(paths, planned, fake)
    found = {(record(paths, one)["status"], record(paths, one)["reason"]) for one in planned}
    assert found == {("skipped", "bench was told to stop before it ended")}
    assert summary.notes == ["jobs were cancelled and are still there: 2 running"]
    assert CANCEL_LIMIT_S <= fake.now() - 8 < CANCEL_LIMIT_S + 10


def test_a_second_signal_leaves_at_once(paths, monkeypatch):
    exits = []
    monkeypatch.setattr(interrupts.os, "_exit", exits.append)
    fake = FakeCluster(paths, planned_cells(8))

    def twice():
        if 7 < fake.now() <= 8:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGTERM)

    fake.on_sleep = twice
    follow(paths, None, fake)
    assert exits[:1] == [143]


def test_a_record_that_cannot_be_read_is_noted_and_made_again(paths):
    planned = planned_cells(2, jobs=1)
    path = paths.cell(planned[0].place).record
    path.parent.mkdir(parents=True)
    path.write_text("{")
    summary = follow(paths, planned, FakeCluster(paths, planned), resume=True)
    assert f"cells/{planned[0].place}/record.json is damaged" in summary.notes[0] and summary.counts == {"ok": 2}


# --- which allocations are asked for, and given up


def slow(job):
    return Script(result=RESULT, duration_s=25.0)


@pytest.mark.parametrize("only_watch", [False, True])
def test_a_job_that_would_find_nothing_to_do_is_cancelled_by_who_does_not_only_watch(paths, only_watch):
    planned = planned_cells(2)
    fake = FakeCluster(paths, planned, script=slow)
    follow(paths, planned, fake, Following(detach=True))
    fake.jobs["101"]["since"] = 1e9
    left = []
    cancel = fake.cancel
    fake.cancel = lambda sweep, jobs: (
        left.append((jobs, [one["end"] for one in fake.jobs.values()])),
        cancel(sweep, jobs),
    )
    fake.on_sleep = lambda: only_watch and fake.now() > 70 and cancel(paths.root, ["101"])
    assert follow(paths, planned, fake, Following(only_watch=only_watch), resume=True).counts == {"ok": 2}
    assert left[:1] == ([] if only_watch else [(["101"], [None, None])])


@pytest.mark.parametrize(
    ("end", "number"),
    [("cancelled", 1), ("failed", 1), ("out_of_memory", 1), ("preempted", 2), ("node_failed", 2), ("unknown", 2)],
)
def test_after_allocations_that_came_to_nothing_as_many_more_are_asked_for_as_retries(paths, end, number):
    fake = FakeCluster(paths, planned_cells(2, jobs=1), lambda number, age_s: end if age_s > 6 else None, script=slow)
    follow(paths, None, fake)
    assert len(fake.jobs) == number


def test_allocations_that_get_somewhere_are_replaced_without_end(paths):
    planned = planned_cells(14, jobs=1)
    fates = {1: 5.2}  # in between one that comes to nothing
    fake = FakeCluster(paths, planned, lambda number, age_s: "preempted" if age_s > fates.get(number, 9) else None)
    assert follow(paths, planned, fake).counts == {"ok": 14} and len(fake.jobs) > 4


def test_who_only_watches_asks_for_nothing(paths):
    planned = planned_cells(2, jobs=1)
    fake = FakeCluster(paths, planned, lambda number, age_s: "preempted" if age_s > 6 else None, script=slow)
    follow(paths, planned, fake, Following(detach=True))
    follow(paths, planned, fake, Following(only_watch=True))
    assert len(fake.jobs) == 1


def test_what_ends_while_the_cluster_is_asked_is_seen_before_more_is_asked_for(paths, capsys):
    planned = planned_cells(2, jobs=1)
    fake = FakeCluster(paths, planned)
    poll = fake.poll

    def late(sweep, jobs):
        while jobs and fake.jobs["100"]["worker"] and fake.jobs["100"]["end"] is None:
            fake._turn()
            fake.cluster.step()
        return poll(sweep, jobs)

    fake.poll = late
    assert follow(paths, planned, fake).counts == {"ok": 2} and len(fake.jobs) == 1
    assert "asking for more" not in capsys.readouterr().err


def test_what_was_at_work_is_told_from_what_was_not_started(paths):
    planned = cells(2, **SLURM, retries=0, repeats=2)
    fake = FakeCluster(paths, planned, lambda number, age_s: "preempted" if age_s > 9 else None, script=slow)
    follow(paths, planned, fake)
    why = "its allocation was preempted (job 100)"
    reasons = sorted(record(paths, one)["reason"] for one in planned)
    assert reasons == [f"it was at work when {why}", f"not started: {why}"]
    assert list((paths.root / "cells").glob("*/repeat-2/record.json")) == []


def test_when_all_is_done_jobs_have_half_a_minute_to_end_by_themselves(paths):
    fake = FakeCluster(paths, planned_cells(2))
    follow(paths, None, fake, Following(detach=True))
    fake.jobs["101"]["since"] = 1e9
    assert follow(paths, None, fake, resume=True).counts == {"ok": 2}
    assert fake.cancelled == ["101"] and 30 < fake.now() < 60


def test_a_record_that_is_damaged_as_soon_as_it_is_there_is_noted(paths):
    planned = planned_cells(1, jobs=1)
    fake = FakeCluster(paths, planned)
    path, step = paths.cell(planned[0].place).record, fake.cluster.step

    def damage():
        step()
        if path.exists():
            path.write_text("{")

    fake.cluster.step = damage
    summary = follow(paths, planned, fake)
    assert f"cells/{planned[0].place}/record.json is damaged" in summary.notes[0] and len(fake.jobs) == 1


def test_one_bench_at_a_time_follows_a_sweep(paths):
    fake = FakeCluster(paths, planned_cells(1))
    with filelock.FileLock(paths.lock), pytest.raises(SweepDirError, match="another bench is running this sweep"):
        follow(paths, None, fake)
    assert fake.jobs == {}


def test_what_is_no_fault_is_said_before_anything_is_asked_for(paths):
    fake = FakeCluster(paths, planned_cells(1))
    with pytest.raises(ConfigError, match="no fault"):
        follow_plan(fake.cluster.plan, paths, fake, RunOptions(clock=fake, fault="no fault"), Following())
    assert fake.jobs == {} and list(paths.root.iterdir()) == []


def test_further_processes_that_were_asked_for_and_have_their_records_are_not_run_again(paths):
    follow(paths, None, FakeCluster(paths, cells(1, **SLURM, repeats=2)))
    again = FakeCluster(paths, cells(1, **SLURM))
    assert follow(paths, None, again, resume=True, repeats=2).counts == {"ok": 1} and again.jobs == {}


@pytest.mark.parametrize("repeats", [None, 2])
def test_probes_are_followed_with_as_many_processes_as_are_asked_for(paths, repeats):
    search = plan_cell(make_cell(leaves=SLURM | {"micro_batch_size": "max", "memory_limit_gib": 4}))
    fake = FakeCluster(paths, [search, *planned_cells(1)])
    follower = Follower(
        fake.cluster.plan, paths, fake, RunOptions(clock=fake, fault=None, repeats=repeats), Following()
    )
    follower._add_probes()
    assert follower.left == {}, "nothing came of the search yet"
    ((_, probe),) = Searches(fake.cluster.plan, paths, {}).due([search], [])
    follower._add_probes()
    assert [(one.cell.cell_id, one.repeat) for one in follower.left.values()] == [
        (probe.cell.cell_id, number) for number in range(1, (repeats or 1) + 1)
    ]
    follower._add_probes()
    assert len(follower.left) == (repeats or 1)


@pytest.mark.parametrize(
    ("known", "options", "num_left"),
    [
        ({}, {}, 1),
        ({}, {"repeats": 2}, 2),
        ({"status": "ok"}, {}, 0),
        ({"status": "ok", "fault": "hang@1"}, {"fault": "hang@1"}, 0),
        ({"status": "ok", "fault": "hang@1"}, {}, 1),
        ({"status": "oom", "code": "oom.device", "flags": ["inferred"]}, {}, 0),
        ({"status": "oom", "code": "oom.device", "flags": ["inferred"]}, {"infer": False}, 1),
        ({"status": "failed", "code": "failed.exit"}, {"selection": Selection(statuses=frozenset({"failed"}))}, 1),
        ({"status": "failed", "code": "failed.exit"}, {"selection": Selection(statuses=frozenset({"skipped"}))}, 0),
    ],
)
def test_jobs_are_asked_for_what_is_left(paths, known, options, num_left):
    planned = planned_cells(1)
    if known:
        path = paths.cell(planned[0].place).record
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(record_to_dict(make_record(planned[0].cell, **known))))
    fake, events = FakeCluster(paths, planned), paths.root / "events"
    settings = RunOptions(**({"clock": fake, "fault": None, "events": events, "resume": bool(known)} | options))
    follow_plan(fake.cluster.plan, paths, fake, settings, Following(detach=True))
    assert json.loads(events.read_text())["num_cells"] == num_left
    assert len(fake.jobs) == num_left


def test_a_job_that_waits_is_not_cancelled_once_the_one_that_had_the_cells_has_gone(paths):
    fake = FakeCluster(
        paths, planned_cells(2), lambda number, age_s: "preempted" if number == 0 and age_s > 35 else None, script=slow
    )
    follow(paths, None, fake, Following(detach=True))
    fake.jobs["101"]["since"] = 60.0
    assert follow(paths, None, fake, resume=True).counts == {"ok": 2} and len(fake.jobs) == 2
