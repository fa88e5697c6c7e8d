import json
import os
from datetime import datetime
from itertools import pairwise
from types import SimpleNamespace

import pytest

from benchrunner.core.paths import SweepPaths
from benchrunner.launch.fake import FakeLauncher, Script
from benchrunner.machine.devices import Locks, local_devices
from benchrunner.outcome.outcome import Outcome
from benchrunner.run import device_use
from benchrunner.run.device_use import DeviceUse, Draining
from benchrunner.run.options import RunOptions
from benchrunner.run.progress import Progress
from fake_sweeps import ERROR, OK, RESULT, cells, record, run, spans
from samples import CPU, H200


def test_forty_cells_on_four_devices(paths):
    summary, launcher = run(
        paths, cells(40), lambda job: Script(duration_s=10 + job.cell.config.seed % 7, result=RESULT), H200
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
    assert all(datetime.fromisoformat(one["started_at"]) for one in runs)


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


BROKEN = Script(errors={0: ERROR | {"message": "CUDA error: uncorrectable ECC error encountered"}}, exits={0: 1})


def test_a_device_that_failed_is_given_up(paths):
    launcher = FakeLauncher(lambda job: BROKEN if 1 in job.devices else OK)
    summary, _ = run(paths, cells(12), launcher=launcher, hardware=H200)
    assert summary.counts == {"ok": 12} and "device 1 failed under" in summary.notes[0]
    assert [devices for _, _, devices in spans(launcher)].count((1,)) == 1


def ran(places=(2, 3), devices=(2, 3), nodes=(0,), pids=()):
    """A job of one cell as far as its devices are concerned."""
    cell = cells(1)[0].cell
    job = SimpleNamespace(devices=devices, nodes=nodes, cell=cell, marker="marker")
    return SimpleNamespace(places=places, job=job, handle=SimpleNamespace(pids=lambda: pids))


LOST = {"infrastructure": "device_lost", "rank": 1}


@pytest.mark.parametrize(
    ("run", "evidence", "lost"),
    [
        (ran(), LOST, {3}),
        (ran(), LOST | {"rank": 0}, {2}),
        (ran(), LOST | {"rank": 2}, {2}),
        (ran(), LOST | {"rank": None}, set()),
        (ran(), LOST | {"infrastructure": "port_taken"}, set()),
        (ran(), None, set()),
        (ran(devices=()), LOST, set()),
        (ran(nodes=(0, 1)), LOST, set()),
    ],
)
def test_the_device_of_the_rank_that_lost_it_is_given_up_where_it_can_be_told(run, evidence, lost):
    launcher = FakeLauncher(lambda job: OK)
    options = RunOptions(locks=Locks(None, []), fault=None)
    devices = DeviceUse(H200, options, Progress(launcher.clock), launcher)
    devices.learn(run, Outcome(status="failed", evidence=evidence))
    assert set(devices.pool.lost) == lost


def test_a_device_has_a_minute_to_become_empty():
    launcher = FakeLauncher(lambda job: OK)
    options = RunOptions(locks=Locks(None, []), probe=Occupied(launcher.clock, 3, until_s=1e9), fault=None)
    progress = Progress(launcher.clock)
    devices, left = DeviceUse(H200, options, progress, launcher), ran()
    devices.start(left, 0.0)
    devices.end(left, 1.0)
    devices.drain(60.9)
    assert devices.pool.lost == {}
    devices.drain(61.0)
    assert devices.pool.lost.keys() == {3} and devices.pool.free == {0, 1, 2}
    assert progress.notes[0].endswith("7.0 GiB in use; it is not used any more, 3 of 4 are left")


@pytest.mark.parametrize(
    ("launched", "num_devices", "are_here"),
    [({}, 4, True), ({"num_nodes": 2}, 8, False), ({"is_local": False}, 0, False)],
    ids=["this machine", "an allocation of several nodes", "a cluster"],
)
def test_devices_are_counted_and_locked_where_they_are(monkeypatch, launched, num_devices, are_here):
    asked = []

    def found(hardware, *, is_local, environ):
        asked.append(is_local)
        return local_devices(hardware, is_local=False, environ=environ)

    monkeypatch.setattr(device_use, "local_devices", found)
    launcher = FakeLauncher(lambda job: OK, **launched)
    devices = DeviceUse(H200, RunOptions(fault=None), Progress(launcher.clock), launcher)
    assert (asked, devices.utilization.num_devices) == ([are_here], num_devices)


def test_what_no_device_can_take_is_skipped():
    launcher = FakeLauncher(lambda job: OK)
    devices = DeviceUse(H200, RunOptions(fault=None), Progress(launcher.clock), launcher)
    outcome = devices.obstacle(cells(1, devices=8)[0])
    assert (outcome.status, outcome.reason_code) == ("skipped", "skipped.devices")
    assert outcome.reason == "needs 8 devices a node, 4 visible" and devices.obstacle(cells(1, devices=4)[0]) is None


def test_one_who_does_nothing_but_wait_for_another_sweep_says_so_once_after_ten_seconds(capsys):
    launcher = FakeLauncher(lambda job: OK)
    devices = DeviceUse(H200, RunOptions(locks=Locks(None, []), fault=None), Progress(launcher.clock), launcher)
    devices.pool.is_contended = True
    moments = [(0, True), (9, True), (10, True), (30, True), (31, False), (40, True), (49, True), (50, True)]
    said = []
    for now_s, is_idle in moments:
        devices.report_contention(now_s, is_idle=is_idle)
        said.append(capsys.readouterr().err.count("waiting for devices"))
    assert said == [0, 0, 1, 0, 0, 0, 0, 1]


def test_what_still_holds_devices_is_named():
    launcher = FakeLauncher(lambda job: OK)
    probe = Occupied(launcher.clock, 3, until_s=9.0)
    assert Draining(run=ran(), since_s=0.0).held(probe) == {3: "7.0 GiB in use"}
    why = "processes 7, 8 of the cell cannot be killed"
    assert Draining(run=ran(pids=(7, 8)), since_s=0.0).held(probe) == {2: why, 3: why}


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


def test_a_sweep_waits_for_another_one_on_the_same_cores(paths, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("BENCH_LOCKS", str(tmp_path / "locks"))
    other = local_devices(CPU, is_local=True, environ=os.environ)[1]
    assert other.take(0)
    launcher = FakeLauncher(lambda job: OK)
    launcher.clock.at(40.0, other.close)
    summary, _ = run(paths, cells(2), launcher=launcher)
    assert summary.counts == {"ok": 2} and spans(launcher)[0][0] >= 40.0
    assert "waiting for the cores of this machine that another bench of yours uses" in capsys.readouterr().err
