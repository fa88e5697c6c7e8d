from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import filelock
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchrunner.core.errors import ConfigError, SweepDirError
from benchrunner.core.paths import SweepPaths
from benchrunner.launch.fake import FakeLauncher, Script
from benchrunner.machine.devices import Locks
from benchrunner.run.attendance import LEASE_S
from benchrunner.run.options import RunOptions, Share
from benchrunner.run.work import work_on
from benchrunner.store.claims_round import begin_round
from fake_sweeps import ENVIRONMENT, ERROR, OK, OOM, RESULT, cells, make_plan, record, run
from samples import CPU, H200, make_cell, plan_cell
from shared_sweeps import Cluster, measured


def statuses(paths, planned):
    return [record(paths, one)["status"] for one in planned]


def test_two_workers_share_a_plan_and_take_no_cell_twice(paths):
    planned = cells(9)
    cluster = Cluster(paths, planned)
    first, second = cluster.add(), cluster.add()
    cluster.run()
    assert statuses(paths, planned) == ["ok"] * 9 and set(measured(cluster).values()) == {1}
    assert min(len(one.launcher.handles) for one in (first, second)) >= 4


def test_cells_of_few_devices_run_side_by_side_in_each_allocation_largest_first(paths):
    planned = [*cells(4), *cells(2, devices=4)]
    cluster = Cluster(paths, planned, hardware=H200)
    first, second = cluster.add(), cluster.add()
    cluster.step()
    assert [len(one.running) for one in (first, second)] == [1, 1]
    assert {one.running[0].job.cell.sizes.devices for one in (first, second)} == {4}
    cluster.run()
    assert statuses(paths, planned) == ["ok"] * 6


def test_what_a_dead_worker_had_is_taken_once_its_lease_is_over(paths):
    planned = cells(3)
    cluster = Cluster(paths, planned, lambda job: Script(result=RESULT, duration_s=5.0))
    first, second = cluster.add(), cluster.add()
    cluster.step()
    first.die()
    cluster.run()
    assert statuses(paths, planned) == ["ok"] * 3 and len(second.launcher.handles) == 3
    assert LEASE_S <= cluster.clock.now() < LEASE_S + 30


def test_what_the_scheduler_says_is_dead_is_taken_at_once(paths):
    planned = cells(3)
    cluster = Cluster(paths, planned, lambda job: Script(result=RESULT, duration_s=5.0))
    first, _ = cluster.add(), cluster.add()
    cluster.step()
    first.die(is_noticed=True)
    cluster.run()
    assert statuses(paths, planned) == ["ok"] * 3 and cluster.clock.now() < 30


def test_nobody_waits_for_workers_that_are_alive(paths):
    planned = cells(2)
    cluster = Cluster(paths, planned, lambda job: Script(result=RESULT, duration_s=500.0))
    workers = [cluster.add() for _ in range(3)]
    cluster.run(lambda: not workers[2].is_here)
    assert cluster.clock.now() < 30 and [one.is_here for one in workers] == [True, True, False]


def test_a_worker_that_slept_too_long_writes_nothing_more(paths):
    planned = cells(2)
    cluster = Cluster(paths, planned, lambda job: Script(result=RESULT, duration_s=5.0))
    sleeper, _ = cluster.add(), cluster.add()
    cluster.step()
    sleeper.sleeps = int(2 * LEASE_S / 0.25)
    cluster.run()
    assert sleeper.is_expelled and statuses(paths, planned) == ["ok"] * 2
    assert record(paths, sleeper.running[0].planned)["attempt"] == 2


@pytest.mark.parametrize("moment", ["claimed", "measured", "recorded"])
def test_a_kill_at_any_moment_costs_no_measurement(paths, moment):
    planned = cells(4)
    cluster = Cluster(paths, planned)
    victim = cluster.add()
    victim.dies_at, victim.dies_after = moment, 1
    cluster.finish(planned)
    assert statuses(paths, planned) == ["ok"] * 4 and set(measured(cluster).values()) == {1}


def test_who_is_told_to_end_gives_its_cells_back(paths):
    planned = cells(2)
    cluster = Cluster(paths, planned, lambda job: Script(result=RESULT, duration_s=5.0))
    first = cluster.add()
    cluster.step()
    first.leave()
    assert not any(paths.cell(one.cell.slug).record.exists() for one in planned)
    cluster.add()
    cluster.run()
    assert statuses(paths, planned) == ["ok"] * 2 and cluster.clock.now() < 30


def test_a_job_that_the_end_of_its_allocation_reached_first_is_no_failure(paths):
    planned = cells(1)
    cluster = Cluster(paths, planned, lambda job: Script(exits={0: -15}))
    ended = cluster.add()
    cluster.clock.sleep = lambda seconds: seconds < 1 or setattr(ended.sweep._interrupts, "signum", 15)
    while not ended.sweep._interrupts.is_asked:
        cluster.step()
    assert not paths.cell(planned[0].cell.slug).record.exists()


def test_no_cell_is_taken_that_does_not_fit_the_rest_of_the_time(paths):
    planned = cells(2)
    cluster = Cluster(paths, planned)
    short = cluster.add(time_s=5.0)
    cluster.run()
    assert short.launcher.handles == [] and not paths.cell(planned[0].cell.slug).record.exists()


def test_failures_elsewhere_open_the_circuit_breaker_here(paths):
    planned = cells(40)
    cluster = Cluster(paths, planned, lambda job: Script(errors={0: ERROR}, exits={0: 1}))
    for _ in range(4):
        cluster.add()
    cluster.run()
    found = [record(paths, one)["reason_code"] for one in planned]
    assert found.count("skipped.brake") > 20 and set(found) == {"failed.exception", "skipped.brake"}


def test_a_micro_batch_that_ran_out_of_memory_elsewhere_decides_the_larger_ones(paths):
    planned = [plan_cell(make_cell(leaves={"micro_batch_size": size})) for size in (1, 2, 4, 8, 16, 32)]
    cluster = Cluster(paths, planned, lambda job: OOM)
    cluster.add()
    cluster.add()
    cluster.run()
    assert statuses(paths, planned) == ["oom"] * 6 and sum(len(one.launcher.handles) for one in cluster.workers) <= 3


def test_each_process_of_a_repeated_cell_is_taken_once(paths):
    planned = cells(3, repeats=3)
    cluster = Cluster(paths, planned)
    first, second = cluster.add(), cluster.add()
    cluster.run()
    processes = cluster.plan.processes()
    assert measured(cluster) == {one.place: 1 for one in processes}
    assert all(paths.cell(one.place).record.exists() for one in processes)
    assert min(len(one.launcher.handles) for one in (first, second)) >= 4


def test_a_cell_that_failed_elsewhere_is_not_repeated_and_nobody_waits_for_its_processes(paths):
    planned = cells(1, repeats=3, brake=None)
    cluster = Cluster(paths, planned, lambda job: Script(errors={0: ERROR}, exits={0: 1}))
    cluster.add()
    cluster.run()
    cluster.add()
    cluster.run()
    assert list(measured(cluster)) == [planned[0].place] and statuses(paths, planned) == ["failed"]


def test_who_comes_later_is_told_before_the_first_start_what_is_not_to_run(paths):
    planned = cells(1, repeats=2)
    run(paths, planned, OOM)
    cluster = Cluster(paths, planned)
    cluster.add()
    cluster.run()
    assert measured(cluster) == {}


def test_who_worked_when_the_sweep_was_resumed_writes_nothing_more(paths):
    planned = cells(2)
    cluster = Cluster(paths, planned, lambda job: Script(result=RESULT, duration_s=5.0))
    left_over = cluster.add()
    cluster.step()
    begin_round(paths)
    cluster.run()
    assert left_over.is_expelled and cluster.clock.now() < 5 and not any(measured(cluster).values())
    cluster.add(round=2)
    cluster.run()
    assert statuses(paths, planned) == ["ok"] * 2 and set(measured(cluster).values()) == {1}


def test_a_bench_that_resumes_alone_does_not_share_with_who_worked_before(paths):
    planned = cells(2)
    cluster = Cluster(paths, planned, lambda job: Script(result=RESULT, duration_s=5.0))
    left_over = cluster.add()
    cluster.step()
    run(paths, planned, resume=True)
    before = [record(paths, one) for one in planned]
    cluster.run()
    assert left_over.is_expelled and [record(paths, one) for one in planned] == before


def test_what_is_no_fault_is_said_before_any_cell_is_taken(paths):
    options = RunOptions(share=Share(worker="w"), environment=ENVIRONMENT, fault="no fault", hardware=CPU)
    with pytest.raises(ConfigError, match="no fault"):
        work_on(make_plan(cells(1)), paths, launcher=FakeLauncher(lambda job: OK), options=options)


@pytest.mark.parametrize("launcher", ["local", "detached"])
def test_nobody_helps_a_bench_that_runs_a_sweep_alone(paths, launcher):
    planned = cells(1, **{"launcher.name": launcher})
    jobs = FakeLauncher(lambda job: OK)
    options = RunOptions(
        share=Share(worker="w"), environment=ENVIRONMENT, fault=None, hardware=CPU, locks=Locks(None, []), resume=True,
        clock=jobs.clock,
    )  # fmt: skip
    help_out = partial(work_on, make_plan(planned), paths, launcher=jobs, options=options)
    with filelock.FileLock(paths.lock):
        if launcher == "local":
            with pytest.raises(SweepDirError, match="runs this sweep alone"):
                help_out()
        else:
            assert help_out().counts == {"ok": 1}
    assert help_out().counts == {"ok": 1}


# --- whoever dies when


def chaos(num_cells, num_workers):
    """(worker, turn, how): deaths of workers, or sleeps."""
    how = st.sampled_from(["between turns", "noticed", "claimed", "measured", "recorded", "asleep", "long asleep"])
    return st.lists(
        st.tuples(st.integers(0, num_workers - 1), st.integers(0, 2 * num_cells // num_workers + 8), how), max_size=20
    )


def strike(cluster, number, how):
    """One event of the chaos."""
    worker = cluster.workers[number]
    if how in ("between turns", "noticed") and worker.is_here:
        worker.die(is_noticed=how == "noticed")
    elif how in ("asleep", "long asleep"):
        worker.sleeps = int((0.5 if how == "asleep" else 1.5) * LEASE_S / 0.25)
    else:
        worker.dies_at = how


def hold_whoever_dies_when(num_cells, num_workers, events, durations):
    planned = cells(num_cells)
    lengths = {one.cell.slug: durations[n % len(durations)] for n, one in enumerate(planned)}
    with TemporaryDirectory() as directory:
        paths = SweepPaths(Path(directory))
        script = lambda job: Script(result=RESULT, duration_s=lengths[job.cell.slug])  # noqa: E731
        cluster = Cluster(paths, planned, script)
        for _ in range(num_workers):
            cluster.add()
        for turn in range(1 + max((at for _, at, _ in events), default=0)):
            for number, at, how in events:
                if at == turn:
                    strike(cluster, number, how)
            cluster.step()
        cluster.finish(planned)
        slept = any(how == "long asleep" for _, _, how in events)
        assert statuses(paths, planned) == ["ok"] * num_cells
        assert slept or set(measured(cluster).values()) == {1}


@given(events=chaos(12, 3), durations=st.lists(st.sampled_from([0.2, 1.0, 4.0]), min_size=1, max_size=5))
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_cell_is_lost_or_taken_twice_whoever_dies_when(events, durations):
    hold_whoever_dies_when(12, 3, events, durations)


@pytest.mark.slow
@given(events=chaos(1000, 8), durations=st.lists(st.sampled_from([0.2, 1.0, 4.0]), min_size=1, max_size=5))
@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_thousand_cells_over_eight_allocations(events, durations):
    hold_whoever_dies_when(1000, 8, events, durations)


@pytest.mark.parametrize("name", ["{slug}.1 (copy).claim", "{slug}.x.claim", ".claim", "{slug}.٣.claim"])
def test_what_else_lies_among_the_claims_ends_no_worker(paths, name):
    planned = cells(2)
    paths.claims(1).mkdir(parents=True)
    (paths.claims(1) / name.format(slug=planned[0].cell.slug)).write_text("{}")
    cluster = Cluster(paths, planned)
    cluster.add()
    cluster.run()
    assert statuses(paths, planned) == ["ok"] * 2
