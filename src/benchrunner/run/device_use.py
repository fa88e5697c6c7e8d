"""The devices while cells run: who has which, when each is empty again, which are given up, how busy they were."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from benchrunner.launch.job import Launcher
from benchrunner.machine.devices import Probe, local_devices
from benchrunner.machine.hardware import Hardware
from benchrunner.outcome.outcome import Outcome
from benchrunner.plan.plan import PlannedCell
from benchrunner.run.options import RunOptions
from benchrunner.run.progress import Progress
from benchrunner.run.schedule import make_pool
from benchrunner.run.utilization import Utilization
from benchrunner.run.watch import Running

DRAIN_LIMIT_S = 60.0
"""A device that is not empty so long after its cell has ended is not used any more."""

CONTENTION_NOTICE_S = 10.0
"""After waiting so long for another sweep it is reported."""


@dataclass(slots=True, kw_only=True)
class Draining:
    """A job that has ended, and its devices until they are empty."""

    run: Running
    since_s: float

    def held(self, probe: Probe) -> dict[int, str]:
        """Devices that are not empty yet, each with what is on it."""
        if pids := self.run.handle.pids():
            why = f"processes {', '.join(map(str, pids))} of the cell cannot be killed"
            return dict.fromkeys(self.run.places, why)
        found = {device: probe.occupants(device) for device in self.run.places}
        return {device: why for device, why in found.items() if why is not None}


class DeviceUse:
    """The pool of the run, and what is known about its devices. While entered it holds their locks."""

    def __init__(self, hardware: Hardware, options: RunOptions, progress: Progress, launcher: Launcher) -> None:
        is_local = launcher.is_local
        is_alone = is_local and launcher.num_nodes == 1  # else devices of one number are on several hosts
        probe, locks = local_devices(hardware, is_local=is_alone, environ=os.environ)
        self._probe, self._locks = options.probe or probe, options.locks or locks
        self.pool = make_pool(hardware, is_local=is_local, locks=self._locks, num_nodes=launcher.num_nodes)
        self.are_named = is_local and hardware.device_type == "cuda"
        """Whether a job is told which devices are its own."""
        self.utilization = Utilization(self.pool.num_devices if is_local else 0)
        self._progress = progress
        self._what = "the cores of this machine" if hardware.device_type == "cpu" else "devices"
        self._draining: list[Draining] = []
        self._contended_since_s: float | None = None
        self._is_contention_reported = False

    def __enter__(self) -> Self:
        """Cells take devices from now on."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Leave the devices to other sweeps."""
        self._locks.close()

    def obstacle(self, planned: PlannedCell) -> Outcome | None:
        """The verdict on a cell that this machine can never run, whatever the plan thought; None: it can."""
        why = self.pool.obstacle(planned)
        return Outcome(status="skipped", reason_code="skipped.devices", reason=why) if why is not None else None

    # --- a cell on its devices

    def give_back(self, places: Iterable[int]) -> None:
        """Nothing was started on these."""
        self.pool.give_back(places)

    def start(self, run: Running, now_s: float) -> None:
        """A cell is at work."""
        self.utilization.start(run.job.marker, len(run.places), now_s)

    def end(self, run: Running, now_s: float) -> None:
        """It has ended; its devices are handed out again once they are empty."""
        self.utilization.end(run.job.marker, now_s)
        self._draining.append(Draining(run=run, since_s=now_s))

    def drain(self, now_s: float) -> None:
        """Hand out again what is empty; give up what does not become so."""
        for left in list(self._draining):
            held = left.held(self._probe)
            self.pool.give_back(set(left.run.places) - set(held))
            left.run.places = tuple(held)
            if now_s >= left.since_s + DRAIN_LIMIT_S:
                for device, why in held.items():
                    self._give_up(device, f"device {device} did not become empty after {left.run.job.cell.slug}: {why}")
                held = {}
            if not held:
                self._draining.remove(left)

    def learn(self, run: Running, outcome: Outcome) -> None:
        """Give up the device that a cell has just lost."""
        found = outcome.evidence or {}
        rank = found.get("rank")
        if found.get("infrastructure") != "device_lost" or rank is None or not run.job.devices:
            return
        if len(run.job.nodes) > 1:  # ranks of several nodes are numbered as the nodes met
            return
        device = run.places[rank % len(run.job.devices)]
        if device not in self.pool.lost:
            self._give_up(device, f"device {device} failed under {run.job.cell.slug}")

    def _give_up(self, device: int, why: str) -> None:
        self.pool.quarantine(device, why)
        left = f"{self.pool.num_usable} of {self.pool.num_devices} are left"
        self._progress.note(f"{why}; it is not used any more, {left}")

    # --- other sweeps

    def report_contention(self, now_s: float, *, is_idle: bool) -> None:
        """Say once that this sweep does nothing but wait for another one."""
        if not (is_idle and self.pool.is_contended):
            self._contended_since_s, self._is_contention_reported = None, False
        elif self._contended_since_s is None:
            self._contended_since_s = now_s
        elif not self._is_contention_reported and now_s >= self._contended_since_s + CONTENTION_NOTICE_S:
            self._progress.report(f"waiting for {self._what} that another bench of yours uses")
            self._is_contention_reported = True
