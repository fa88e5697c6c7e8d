"""Several loops over one plan, a turn at a time on one virtual clock: any can die, or sleep, at any moment."""

from benchrunner.core.errors import SweepDirError
from benchrunner.launch.fake import FakeLauncher, VirtualClock
from benchrunner.machine.devices import Locks
from benchrunner.run.options import RunOptions, Share
from benchrunner.run.prepare import prepare
from benchrunner.run.sweep import Sweep
from benchrunner.store.workers import declare_gone
from fake_sweeps import ENVIRONMENT, OK, make_plan
from samples import CPU


class Killed(BaseException):
    """As SIGKILL: nothing of the worker runs any more."""


class SharedClock:
    """The cluster's time; a loop that sleeps only ends its turn."""

    def __init__(self):
        self.virtual = VirtualClock()

    def now(self):
        return self.virtual.now()

    def sleep(self, seconds):
        pass


class Cluster:
    """Workers of one sweep."""

    def __init__(self, paths, planned, script=lambda job: OK, hardware=CPU):
        self.plan, self.paths, self.script, self.hardware = make_plan(planned, hardware), paths, script, hardware
        self.clock = SharedClock()
        self.workers = []

    def add(self, **share):
        """Another worker."""
        self.workers.append(Worker(self, f"w{len(self.workers)}", share))
        return self.workers[-1]

    def step(self, seconds=0.25):
        """A turn of everybody, and time passes."""
        for worker in self.workers:
            worker.turn()
        self.clock.virtual.sleep(seconds)

    def run(self, is_over=None, most_s=1_500.0):
        """Until every worker has left or died."""
        while any(worker.is_here for worker in self.workers) and not (is_over and is_over()):
            self.step()
            assert self.clock.now() < most_s, "it does not end"

    def finish(self, cells):
        """As a new allocation does when all others have gone and something is left."""
        for _ in range(100):
            self.run()
            if all(self.paths.cell(one.place).record.exists() for one in cells):
                return
            self.add()
        raise AssertionError("it does not end")

    def at_work(self, place):
        """The workers of the living that run this cell, or further process of one, now."""
        return [
            worker
            for worker in self.workers
            if worker.is_here and place in [one.planned.place for one in worker.running]
        ]


class Worker:
    """One loop on a machine of its own.

    `dies_at` is where in its `dies_after`-th cell it is killed, and `sleeps` how many turns it misses.
    """

    def __init__(self, cluster, name, share):
        self.cluster, self.name = cluster, name
        self.is_here, self.is_expelled = True, False
        self.dies_at, self.dies_after, self.sleeps = None, 0, 0
        self.num = {"claimed": 0, "measured": 0, "recorded": 0}
        self.launcher = FakeLauncher(self._script)
        self.launcher.clock = cluster.clock
        options = RunOptions(
            resume=True, environment=ENVIRONMENT, clock=cluster.clock, fault=None, hardware=cluster.hardware,
            locks=Locks(None, []), share=Share(worker=name, **share),
        )  # fmt: skip
        prepared = prepare(cluster.plan, cluster.paths, self.launcher, options)
        self.sweep = Sweep(prepared, self.launcher, options)
        self._wrap(self.sweep.ledger, "conclude", "measured")
        self._wrap(self.sweep.source, "conclude", "recorded")

    @property
    def running(self):
        return self.sweep.running

    def turn(self):
        """One turn of its loop, if it is there and awake."""
        if self.sleeps > 0:
            self.sleeps -= 1
        elif self.is_here:
            try:
                if self.running or self.sweep.source.has_more(self.sweep.queue):
                    self.sweep.turn()
                else:
                    self.leave()
            except Killed:
                self.die()
            except SweepDirError:
                self.is_expelled = True
                self.die()

    def leave(self):
        """In order: what it has at work is given back."""
        self.sweep._wind_down()
        self.sweep._summarise(self.cluster.plan, None)
        self.is_here = False

    def die(self, *, is_noticed=False):
        """Its jobs die with it. `is_noticed`: the scheduler says so."""
        for run in self.running:
            run.handle.kill()
        self.is_here = False
        if is_noticed:
            declare_gone(self.cluster.paths, self.name)

    def _script(self, job):
        assert all(one.sleeps for one in self.cluster.at_work(place(job)))
        self._reach("claimed")
        return self.cluster.script(job)

    def _wrap(self, owner, name, moment):
        inner = getattr(owner, name)

        def reached(*arguments, **more):
            self._reach(moment)
            return inner(*arguments, **more)

        setattr(owner, name, reached)

    def _reach(self, moment):
        self.num[moment] += 1
        if self.dies_at == moment and self.num[moment] > self.dies_after:
            raise Killed


def place(job):
    """Where the process of a cell is kept that a job is an attempt at: see `PlannedCell.place`."""
    root = job.paths.root.parent
    return root.relative_to(next(above for above in root.parents if above.name == "cells")).as_posix()


def measured(cluster):
    """Place → how many jobs came to their end."""
    found = {}
    for worker in cluster.workers:
        for handle in worker.launcher.handles:
            found[place(handle.job)] = found.get(place(handle.job), 0) + (handle._code == 0)
    return found
