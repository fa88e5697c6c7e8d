"""Any history of a sweep: deaths, unreadable files, budgets, circuit breakers, interrupts, crashes and resumes in any
order, through the whole parent on scripted jobs and a virtual clock."""

import os
import signal
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from benchrunner.core.paths import SweepPaths
from benchrunner.launch.fake import FakeLauncher, Script, VirtualClock
from benchrunner.machine.devices import Locks
from benchrunner.store.probes import with_probes
from fake_sweeps import ENVIRONMENT, ERROR, RESULT, make_plan, record, run
from samples import CPU, H200, make_cell, plan_cell

TIMEOUT_S = 25.0
LONGEST_S = 3600.0
"""Longer no run of so few cells may take, on the virtual clock."""


class Crash(BaseException):
    """`bench` is gone from one moment to the next."""


HEALTHY = st.builds(
    Script,
    duration_s=st.floats(0.1, 15.0),
    unreadable_s=st.tuples(st.floats(0.0, 12.0), st.floats(0.0, 3.0)).map(lambda pair: (pair[0], sum(pair))),
)
SICK = st.one_of(
    st.builds(Script, duration_s=st.floats(0.1, 5.0), errors=st.just({0: ERROR}), exits=st.just({0: 1})),
    st.builds(Script, exits=st.sampled_from([{0: -9}, {0: -11}, {0: 3}]), num_oom_kills=st.integers(0, 1)),
    st.just(Script(errors={0: ERROR | {"kind": "oom", "message": "CUDA out of memory"}}, exits={0: 1})),
    st.just(Script(hangs=True)),
    st.just(Script(hangs=True, errors={0: ERROR})),
    st.just(Script(result=None)),
    st.just(Script(duration_s=9.0, unreadable_s=(2.0, 1e9))),
    st.just(Script(raises=OSError("no more processes"))),
)


@dataclass
class Turn:
    """One `bench` over the sweep."""

    now_s: float
    """Where its clock begins."""
    sick: dict[int, Script]
    """Cell → what becomes of it this time; the others are healthy."""
    healthy: Script
    budget_s: float | None
    brake: int | None
    ends: tuple[str, float] | None
    """How it is stopped (interrupt | crash) and when; None: it is not."""


@st.composite
def turns(draw, num_cells):
    sick = draw(st.dictionaries(st.integers(0, num_cells - 1), SICK, max_size=num_cells))
    return Turn(
        now_s=draw(st.sampled_from([0.0, 1.0, 1e6])),
        sick=sick,
        healthy=draw(HEALTHY),
        budget_s=draw(st.none() | st.floats(1.0, 200.0)),
        brake=draw(st.none() | st.integers(1, 3)),
        ends=draw(st.none() | st.tuples(st.sampled_from(["interrupt", "crash"]), st.floats(0.1, 60.0))),
    )


@dataclass
class History:
    """What was launched, over all runs."""

    launches: dict[int, tuple[str, int]] = field(default_factory=dict)
    """Serial number → slug and attempt. A job's result holds its number."""
    faults: list[str] = field(default_factory=list)
    """What must not be, seen as a job was started: the loop makes a verdict of whatever is raised there."""

    def launcher(self, turn, planned, now_s):
        places = {one.cell.slug: place for place, one in enumerate(planned)} | {SEARCH: len(planned) - 1}
        launcher = FakeLauncher(lambda job: self.script(job, launcher, turn, places))
        launcher.clock = BoundClock(now_s)
        return launcher

    def script(self, job, launcher, turn, places):
        at_work = [handle for handle in launcher.handles if handle.ended_s is None]
        held = [device for handle in at_work for device in handle.job.devices]
        place = places.get(job.cell.slug, places[SEARCH])  # a probe is as well as its search
        largest = LARGEST if place == places[SEARCH] else job.cell.sizes.micro_batch_size
        healthy = turn.healthy if job.cell.sizes.micro_batch_size <= largest else TOO_LARGE
        script = turn.sick.get(place, healthy)
        if script.raises is not None:
            return script
        if set(job.devices) & set(held):
            self.faults.append(f"a device of {held} was given twice: {job.devices}")
        if (job.cell.slug, job.attempt) in self.launches.values():
            self.faults.append(f"attempt {job.attempt} at {job.cell.slug} was made twice")
        serial = len(self.launches) + 1
        self.launches[serial] = (job.cell.slug, job.attempt)
        result = RESULT | {"num_parameters": serial} if script.result is not None else None
        return Script(**{name: getattr(script, name) for name in Script.__dataclass_fields__} | {"result": result})


class BoundClock(VirtualClock):
    """Nothing waits for ever."""

    def __init__(self, now_s):
        super().__init__(now_s)
        self.end_s = now_s + LONGEST_S

    def sleep(self, seconds):
        super().sleep(seconds)
        assert self.now() < self.end_s, "something waits for ever"


SEARCH, LARGEST = "the search", 4
TOO_LARGE = Script(duration_s=2.0, errors={0: ERROR | {"kind": "oom", "message": "CUDA out of memory"}}, exits={0: 1})


def cells_of(hardware):
    """Three kinds of two seeds each, on GPUs of one, two and four devices; and a search of at most five probes."""
    kinds = [("single", 1), ("ddp", 2), ("fsdp_stage3", 4 if hardware is H200 else 2)]
    leaves = {"timeout_s": TIMEOUT_S}
    search = {"micro_batch_size": "max", "global_batch_size": 16, "memory_limit_gib": 4}
    return [
        plan_cell(make_cell(strategy=kind, leaves=leaves | {"seed": seed, "devices": devices}))
        for kind, devices in kinds
        for seed in range(2)
    ] + [plan_cell(make_cell(leaves=leaves | search))]


def with_brake(planned, brake):
    leaves = [one.cell.overrides | {"brake": brake} for one in planned]
    return [
        plan_cell(make_cell(strategy=one.cell.axes["strategy"], leaves=changed))
        for one, changed in zip(planned, leaves, strict=True)
    ]


def take(turn, history, paths, planned, hardware, *, resume):
    """One run; the summary, or None after a crash."""
    launcher = history.launcher(turn, planned, turn.now_s)

    def stop():
        if turn.ends[0] == "crash":
            raise Crash
        os.kill(os.getpid(), signal.SIGINT)

    if turn.ends:
        launcher.clock.at(turn.now_s + turn.ends[1], stop)
    options = {"budget_s": turn.budget_s, "resume": resume, "locks": Locks(None, []), "environment": ENVIRONMENT}
    try:
        plan = with_probes(make_plan(with_brake(planned, turn.brake), hardware), paths)
        return run(paths, plan.cells, hardware=hardware, launcher=launcher, **options)[0]
    except Crash:
        return None


QUICK = tuple(phase for phase in Phase if phase is not Phase.shrink)
"""A history that is wrong takes minutes to be made smaller."""


@pytest.mark.slow
@settings(max_examples=25, deadline=None, phases=QUICK, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_every_cell_ends_with_a_verdict_of_its_own(data):
    hardware = data.draw(st.sampled_from([CPU, H200]))
    planned = cells_of(hardware)
    history, before = History(), signal.signal(signal.SIGINT, lambda *_: None)  # one that comes after the run's end
    try:
        with tempfile.TemporaryDirectory() as place:
            paths = SweepPaths(Path(place))
            for number, turn in enumerate(data.draw(st.lists(turns(len(planned)), min_size=1, max_size=4))):
                summary = take(turn, history, paths, planned, hardware, resume=number > 0)
                check_measurements(paths, planned, history)
                check_healthy(turn, summary, paths, planned)
            last = Turn(now_s=5.0, sick={}, healthy=Script(), budget_s=None, brake=1, ends=None)
            summary = take(last, history, paths, planned, hardware, resume=True)
            check_measurements(paths, planned, history)
            statuses = [record(paths, one)["status"] for one in planned]
            assert sum(summary.counts.values()) == num_cells(paths, planned) and summary.interrupted_by is None
            check_search(paths, planned, hardware)
            assert set(statuses) <= {"ok", "oom"}, "whatever was kept is a finding, the rest is healthy now"
    finally:
        signal.signal(signal.SIGINT, before)


def num_cells(paths, planned):
    """Those of the matrix, and the probes so far."""
    return len(with_probes(make_plan(planned), paths).cells)


def check_search(paths, planned, hardware):
    """It has found the largest size of which there is a measurement, and every probe has a verdict."""
    probes = [one for one in with_probes(make_plan(planned, hardware), paths).cells if one.probe_of]
    made = {one.cell.sizes.micro_batch_size: record(paths, one)["status"] for one in probes}
    assert set(made.values()) <= {"ok", "oom"} and set(made) <= {1, 2, 4, 8, 16}
    found = record(paths, planned[-1])["evidence"]["search"]["micro_batch_size"]
    assert found == max((size for size, status in made.items() if status == "ok"), default=None)


def check_measurements(paths, planned, history):
    """Each is of the launch that it names, and of no other."""
    assert not history.faults
    for one in with_probes(make_plan(planned), paths).cells:
        if paths.cell(one.cell.slug).record.exists():
            made = record(paths, one)
            assert made["cell_id"] == one.cell.cell_id
            if made["status"] == "ok" and not one.cell.search:
                assert history.launches[made["num_parameters"]] == (one.cell.slug, made["attempt"])


def check_healthy(turn, summary, paths, planned):
    """A cell that is not sick is not kept from its verdict by those that are."""
    if summary is None or turn.ends or turn.budget_s is not None:
        return
    assert sum(summary.counts.values()) == num_cells(paths, planned)
    for place, one in enumerate(planned):
        if place not in turn.sick and (turn.brake is None or not turn.sick):
            assert record(paths, one)["status"] in ("ok", "oom"), one.cell.slug
