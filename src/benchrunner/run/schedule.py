"""Which cells run at once, and on which devices."""

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import TypeVar

from benchrunner.machine.devices import Locks
from benchrunner.machine.hardware import Hardware
from benchrunner.plan.plan import PlannedCell

REMOTE_SLOTS = 64
"""Jobs waiting or running at once where somebody else hands out the devices."""

Start = tuple[PlannedCell, tuple[int, ...]]

Doom = TypeVar("Doom")
"""Why a cell will not run."""


class Pool:
    """The devices of this machine, handed out to cells."""

    def __init__(self, num_devices: int, locks: Locks | None = None) -> None:
        self.num_devices = num_devices
        self.free = set(range(num_devices))
        self.lost: dict[int, str] = {}
        """Devices in quarantine, each with why."""
        self.locks = locks or Locks(None, [])
        self.is_contended = False
        """Whether a free device could not be taken because another sweep has it."""

    @property
    def num_usable(self) -> int:
        """Devices that are not in quarantine."""
        return self.num_devices - len(self.lost)

    def need(self, planned: PlannedCell) -> int:
        """Devices that the cell takes; all of them when it is to be alone."""
        devices = planned.cell.sizes.devices
        return max(devices, self.num_usable) if planned.cell.config.exclusive else devices

    def obstacle(self, planned: PlannedCell) -> str | None:
        """Why the cell would not fit even if everything were free; None when it would."""
        sizes = planned.cell.sizes
        if sizes.nodes > 1:
            return f"needs {sizes.nodes} nodes, and launcher=local has this one"
        if sizes.devices > self.num_devices:
            return f"needs {sizes.devices} devices a node, {self.num_devices} visible"
        if sizes.devices > self.num_usable:
            return f"needs {sizes.devices} devices a node, {self.num_usable} left of {self.num_devices}: {self._lost()}"
        return None

    def take(self, count: int) -> tuple[int, ...] | None:
        """The lowest free devices that no other sweep has, locked; or None when there are too few."""
        chosen: list[int] = []
        for device in sorted(self.free) if count <= len(self.free) else ():
            if len(chosen) < count and self.locks.take(device):
                chosen.append(device)
        if len(chosen) < count:
            self.is_contended = self.is_contended or count <= len(self.free)
            for device in chosen:
                self.locks.give_back(device)
            return None
        self.free -= set(chosen)
        return tuple(chosen)

    def give_back(self, devices: Iterable[int]) -> None:
        """These are free again."""
        for device in set(devices) - set(self.lost):
            self.locks.give_back(device)
            self.free.add(device)

    def quarantine(self, device: int, why: str) -> None:
        """Hand this device out no more; its lock stays, so that no other sweep of ours meets it."""
        self.lost[device] = why
        self.free.discard(device)

    def _lost(self) -> str:
        return "; ".join(why for _, why in sorted(self.lost.items()))


class SlotPool(Pool):
    """Places without a device behind them: one on a CPU, many where a cluster hands out the devices."""

    def need(self, planned: PlannedCell) -> int:
        """One place a cell."""
        return 1

    def obstacle(self, planned: PlannedCell) -> str | None:
        """None but too many nodes, as the CPU of this machine is one; and a machine that is still occupied."""
        sizes = planned.cell.sizes
        if self.num_devices == 1 and sizes.nodes > 1:
            return f"needs {sizes.nodes} nodes, and launcher=local has this one"
        return None if self.num_usable else f"the machine is still occupied: {self._lost()}"


def make_pool(hardware: Hardware, *, is_local: bool, locks: Locks | None = None) -> Pool:
    """The pool for this machine: side by side on disjoint GPUs, one at a time on a CPU."""
    if not is_local:
        return SlotPool(REMOTE_SLOTS)
    return Pool(hardware.num_devices, locks) if hardware.device_type == "cuda" else SlotPool(1, locks)


class Queue:
    """Cells that wait: largest first, in the given order among equals; or wholly in the given order.

    A cell that fits may overtake the first one that does not, but only as often as there are devices: then whatever
    becomes free is kept for it. So every cell comes to the head in its turn, and none starves. Between sweeps the
    turnstile of the locks does the same: one that waits for devices stays inside, and no other sweep starts a cell.
    """

    def __init__(
        self,
        cells: Iterable[PlannedCell],
        pool: Pool,
        *,
        largest_first: bool = True,
        last: Collection[str] = (),
    ) -> None:
        """`last`: slugs of the cells that wait for all others."""
        self.pool = pool
        self._waiting = list(cells)
        if largest_first:
            self._waiting.sort(key=lambda planned: -pool.need(planned))
        self._waiting.sort(key=lambda planned: planned.cell.slug in last)
        self._head: PlannedCell | None = None
        """The first that did not fit last time."""
        self._num_overtaken = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[PlannedCell]:
        return iter(self._waiting)

    def start(self) -> list[Start]:
        """The cells that start now, each with its devices."""
        self.pool.is_contended = False
        if not self._waiting or not self.pool.free:
            self.pool.locks.leave()
            return []
        if not self.pool.locks.enter():
            self.pool.is_contended = True
            return []
        started, head = self._take()
        # Inside the turnstile no other sweep takes what becomes free: so a cell waits for devices of others, and so it
        # waits for its own once it has been overtaken often enough.
        if not (head and self._waiting and (self.pool.is_contended or self._is_kept_for_head())):
            self.pool.locks.leave()
        return started

    def put_first(self, planned: PlannedCell) -> None:
        """Let a cell that was started wait again, before all others."""
        self._waiting.insert(0, planned)

    def drop(self, doom_of: Callable[[PlannedCell], Doom | None]) -> list[tuple[PlannedCell, Doom]]:
        """Take out the cells that will not run, and return each with what `doom_of` says of it."""
        found = [(planned, doom_of(planned)) for planned in self._waiting]
        self._waiting = [planned for planned, doom in found if doom is None]
        return [(planned, doom) for planned, doom in found if doom is not None]

    def _take(self) -> tuple[list[Start], PlannedCell | None]:
        """What starts, and the first cell that has to wait for more devices than it gets."""
        started: list[Start] = []
        head: PlannedCell | None = None
        # The least number of devices that could not be had in this turn: asking for as many again would be in vain.
        too_many = len(self.pool.free) + 1
        for planned in self._waiting:
            if not self.pool.free or too_many <= 1 or (head is not None and self._is_kept_for_head()):
                break
            need = self.pool.need(planned)
            devices = self.pool.take(need) if need < too_many else None
            too_many = too_many if devices is not None else min(too_many, need)
            if devices is not None:
                started.append((planned, devices))
                self._num_overtaken += head is not None
            elif head is None:
                head = self._put_at_head(planned)
        taken = {id(planned) for planned, _ in started}
        self._waiting = [planned for planned in self._waiting if id(planned) not in taken]
        return started, head

    def _is_kept_for_head(self) -> bool:
        return self._num_overtaken >= self.pool.num_devices

    def _put_at_head(self, planned: PlannedCell) -> PlannedCell:
        if planned is not self._head:  # the count is of one cell's waiting, over all turns
            self._head, self._num_overtaken = planned, 0
        return planned
