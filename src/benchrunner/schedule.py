"""Which cells run at once, and on which devices."""

from collections.abc import Iterable

from benchrunner.hardware import Hardware
from benchrunner.plan import PlannedCell

REMOTE_SLOTS = 64
"""Jobs waiting or running at once where somebody else hands out the devices."""

Start = tuple[PlannedCell, tuple[int, ...]]


class Pool:
    """The devices of this machine, handed out to cells."""

    def __init__(self, num_devices: int) -> None:
        self.num_devices = num_devices
        self.free = set(range(num_devices))

    def need(self, planned: PlannedCell) -> int:
        """Devices that the cell takes."""
        return planned.cell.sizes.devices

    def obstacle(self, planned: PlannedCell) -> str | None:
        """Why the cell would not fit even if everything were free; null when it would."""
        sizes = planned.cell.sizes
        if sizes.nodes > 1:
            return f"needs {sizes.nodes} nodes, and launcher=local has this one"
        if sizes.devices > self.num_devices:
            return f"needs {sizes.devices} devices a node, {self.num_devices} visible"
        return None

    def take(self, count: int) -> tuple[int, ...] | None:
        """The lowest free devices, or null when there are too few."""
        chosen = tuple(sorted(self.free)[:count])
        if len(chosen) < count:
            return None
        self.free -= set(chosen)
        return chosen

    def give_back(self, devices: Iterable[int]) -> None:
        """These are free again."""
        self.free |= set(devices)


class SlotPool(Pool):
    """Places without devices: one on a CPU, many where a cluster hands out the devices."""

    def need(self, planned: PlannedCell) -> int:
        """One place a cell."""
        return 1

    def obstacle(self, planned: PlannedCell) -> str | None:
        """None but too many nodes: the CPU of this machine is one."""
        sizes = planned.cell.sizes
        if self.num_devices == 1 and sizes.nodes > 1:
            return f"needs {sizes.nodes} nodes, and launcher=local has this one"
        return None


def make_pool(hardware: Hardware, *, is_local: bool) -> Pool:
    """The pool for this machine: side by side on disjoint GPUs, one at a time on a CPU."""
    if not is_local:
        return SlotPool(REMOTE_SLOTS)
    return Pool(hardware.num_devices) if hardware.device_type == "cuda" else SlotPool(1)


class Queue:
    """Cells that wait: largest first, in the plan's order among equals.

    A cell that fits may overtake the first one that does not, but only as often as there are devices: then whatever
    becomes free is kept for it. So every cell comes to the head in its turn, and none starves.
    """

    def __init__(self, cells: Iterable[PlannedCell], pool: Pool) -> None:
        self.pool = pool
        self._waiting = sorted(cells, key=lambda planned: -pool.need(planned))
        self._head: PlannedCell | None = None
        """The first that did not fit last time."""
        self._num_overtaken = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def start(self) -> list[Start]:
        """The cells that start now, each with its devices."""
        started: list[Start] = []
        head: PlannedCell | None = None
        for planned in self._waiting:
            if not self.pool.free or (head is not None and self._num_overtaken >= self.pool.num_devices):
                break
            devices = self.pool.take(self.pool.need(planned))
            if devices is not None:
                started.append((planned, devices))
                self._num_overtaken += head is not None
            elif head is None:
                head = self._put_at_head(planned)
        taken = {id(planned) for planned, _ in started}
        self._waiting = [planned for planned in self._waiting if id(planned) not in taken]
        return started

    def drain(self) -> list[PlannedCell]:
        """Empty the queue and return who was waiting."""
        waiting, self._waiting = self._waiting, []
        return waiting

    def _put_at_head(self, planned: PlannedCell) -> PlannedCell:
        if planned is not self._head:
            self._head, self._num_overtaken = planned, 0
        return planned
