"""What every part of a rank knows: its cell, its place in the world, its device, and the phase it is in."""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from benchrunner.core.cell import Cell
from benchrunner.core.files import write_json
from benchrunner.core.heartbeat import Heartbeat
from benchrunner.core.job_file import Machine
from benchrunner.core.rank_file import RankFile
from benchrunner.core.rank_result import RankResult
from benchrunner.core.record import Phase

COLLECTIVE_SLACK_S = 120.0
"""A collective gives up this long after the cell's own limit, so that the runner, who sees every rank, judges first."""


class Context:
    """One rank. `hardware` is the machine as planned (plain data).

    `started_s` is time.monotonic() when the rank began, so that the phase `start` holds the import of torch.
    """

    def __init__(
        self,
        *,
        cell: Cell,
        hardware: Machine,
        rank: int = 0,
        local_rank: int = 0,
        world_size: int = 1,
        path: Path,
        status: RankFile | None = None,
        started_s: float | None = None,
    ) -> None:
        self.cell = cell
        self.hardware = hardware
        self.rank = rank
        self.local_rank = local_rank
        self.world_size = world_size
        self.path = path
        """The rank file."""
        self.status = status or RankFile(rank=rank, pid=os.getpid(), phase_started_at=time.time())
        self._heartbeat = Heartbeat(path.with_name(f"beat{rank}"))
        self._phase_started_s = time.monotonic() if started_s is None else started_s
        self.device = _select_device(hardware["device_type"], local_rank)
        self.on_phase: list[Callable[[Phase], None]] = []
        """Called with the name of each phase that the rank enters, once the rank file shows it."""

    def phase(self, name: Phase) -> None:
        """End the phase before, enter `name`, show both in the rank file, then call `on_phase`.

        Entering the phase that the rank is in already does nothing.
        """
        if name == self.status.phase:
            return
        self._close_phase()
        self.status.phase = name
        self.status.phase_started_at = time.time()
        self.save()
        for hear in self.on_phase:
            hear(name)

    def keep(self, result: RankResult) -> None:
        """The measurement is complete: it is in the rank file before anything that checks it can fail."""
        self.status.result = result
        self.phase("check")

    def checking_s(self) -> float:
        """Seconds in the phase `check`; 0 outside of it."""
        return time.monotonic() - self._phase_started_s if self.status.phase == "check" else 0.0

    def beat(self) -> None:
        """Say that one more step was issued, so that the runner can tell slow from stuck."""
        self._heartbeat.beat()

    def drawing(self, steps: range) -> Iterator[int]:
        """These steps, one after the other, each a sign of life once its data are drawn: a million take minutes."""
        for step in steps:
            yield step
            self._heartbeat.drew()

    def init_process_group(self) -> None:
        """Join the other ranks: NCCL between CUDA devices, gloo between CPU ranks; alone there is nothing to join."""
        if self.world_size == 1 or dist.is_initialized():
            return
        on_cuda = self.device.type == "cuda"
        dist.init_process_group(
            backend="nccl" if on_cuda else "gloo",
            timeout=timedelta(seconds=float(self.cell.config.timeout_s) + COLLECTIVE_SLACK_S),
            device_id=self.device if on_cuda else None,
        )

    def destroy_process_group(self) -> None:
        """Wait for every rank, then part, so that none loses a peer that is still at work."""
        if dist.is_initialized():
            dist.barrier()
            dist.destroy_process_group()

    def finish(self) -> None:
        """The last write of a rank that reached its end."""
        self._close_phase()
        self.status.state = "done"
        self.save()

    def save(self) -> None:
        """Rewrite the rank file atomically."""
        write_json(self.path, asdict(self.status))

    def _close_phase(self) -> None:
        now_s = time.monotonic()
        spent_s = self.status.phases_s.get(self.status.phase, 0.0)
        self.status.phases_s[self.status.phase] = spent_s + now_s - self._phase_started_s
        self._phase_started_s = now_s


def _select_device(device_type: str, local_rank: int) -> torch.device:
    """The rank's own among the devices that CUDA_VISIBLE_DEVICES leaves visible, made current; or the CPU."""
    if device_type != "cuda":
        return torch.device("cpu")
    device = torch.device("cuda", local_rank)
    torch.cuda.set_device(device)
    return device
