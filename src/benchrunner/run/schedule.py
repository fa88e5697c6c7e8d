"""Which cells run at once, and on which devices."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Protocol, TypeVar

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
            return f"needs {sizes.nodes} nodes, and there is this one"
        if sizes.devices > self.num_devices:
            return f"needs {sizes.devices} devices a node, {self.num_devices} visible"
        if sizes.devices > self.num_usable:
            return f"needs {sizes.devices} devices a node, {self.num_usable} left of {self.num_devices}: {self._lost()}"
        return None

    def located(self, places: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The nodes that these are on, and which they are on the first one of them."""
        return (0,), tuple(places)

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
            return f"needs {sizes.nodes} nodes, and there is this one"
        return None if self.num_usable else f"the machine is still occupied: {self._lost()}"


class NodesPool(Pool):
    """The devices of several nodes alike, of which a CPU counts as one: node n has n × per_node and those after it."""

    def __init__(self, num_nodes: int, per_node: int) -> None:
        super().__init__(num_nodes * per_node)
        self._num_nodes, self._per_node = num_nodes, per_node

    def need(self, planned: PlannedCell) -> int:
        """A cell of several nodes has them to itself."""
        sizes = planned.cell.sizes
        if sizes.nodes > 1 or planned.cell.config.exclusive:
            return max(sizes.nodes * self._per_node, self.num_devices if planned.cell.config.exclusive else 0)
        return min(sizes.devices, self._per_node)

    def obstacle(self, planned: PlannedCell) -> str | None:
        """See Pool."""
        sizes = planned.cell.sizes
        whole = sum(not set(range(first, first + self._per_node)) & set(self.lost) for first in self._firsts())
        if sizes.nodes > whole:
            return f"needs {sizes.nodes} nodes, and the allocation has {whole}"
        if sizes.devices > self._per_node > 1:
            return f"needs {sizes.devices} devices a node, {self._per_node} visible"
        return None

    def located(self, places: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """See Pool."""
        nodes = tuple(sorted({place // self._per_node for place in places}))
        return nodes, tuple(place % self._per_node for place in places if place // self._per_node == nodes[0])

    def take(self, count: int) -> tuple[int, ...] | None:
        """Part of the fullest node that has so many, or whole nodes."""
        free = [sorted(self.free & set(range(first, first + self._per_node))) for first in self._firsts()]
        if count <= self._per_node:
            chosen = min((one for one in free if len(one) >= count), key=len, default=[])[:count]
        else:
            whole = [one for one in free if len(one) == self._per_node]
            chosen = [place for one in whole[: count // self._per_node] for place in one]
        if len(chosen) < count:
            return None
        self.free -= set(chosen)
        return tuple(chosen)

    def _firsts(self) -> range:
        return range(0, self.num_devices, self._per_node)


def make_pool(hardware: Hardware, *, is_local: bool, locks: Locks | None = None, num_nodes: int = 1) -> Pool:
    """The pool for this machine, or for an allocation of several like it: side by side on disjoint GPUs, one at a time
    on a CPU.
    """
    if num_nodes > 1:
        return NodesPool(num_nodes, hardware.num_devices if hardware.device_type == "cuda" else 1)
    if not is_local:
        return SlotPool(REMOTE_SLOTS)
    return Pool(hardware.num_devices, locks) if hardware.device_type == "cuda" else SlotPool(1, locks)


class Gate(Protocol):
    """Whose the cells are: see `source.Source`."""

    def is_open(self, planned: PlannedCell) -> bool:
        """Whether a cell may be to be had."""

    def take(self, planned: PlannedCell) -> bool:
        """Whether it is ours from now on."""


class Queue:
    """Cells that wait: largest first, in the given order among equals; or wholly in the given order. Repeats
    wait behind all first processes.

    A cell that fits may overtake the first one that does not, but only as often as there are devices: then whatever
    becomes free is kept for it. So every cell comes to the head in its turn, and none starves. Between sweeps the
    turnstile of the locks does the same: one that waits for devices stays inside, and no other sweep starts a cell.

    A search is never started: it waits until its probes have decided it.

    With a `gate` a cell is started or dropped only when that lets it pass; until then it goes on waiting.
    """

    def __init__(
        self,
        cells: Iterable[PlannedCell],
        pool: Pool,
        *,
        largest_first: bool = True,
        last: Collection[str] = (),
        gate: Gate | None = None,
    ) -> None:
        """`last`: places of the cells that wait for all others."""
        self.pool = pool
        self._gate = gate
        self._waiting = list(cells)
        if largest_first:
            self._waiting.sort(key=lambda planned: (planned.repeat, -pool.need(planned)))
        self._waiting.sort(key=lambda planned: planned.place in last)
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
        if not (head and (self.pool.is_contended or self._is_kept_for_head())):
            self.pool.locks.leave()
        return started

    def put_before(self, planned: PlannedCell, processes: Sequence[PlannedCell]) -> None:
        """Let a cell wait as well, its first process right before a cell that does; its repeats behind everything."""
        place = next((i for i, one in enumerate(self._waiting) if one.place == planned.place), 0)
        self._waiting[place:place] = processes[:1]
        self._waiting += processes[1:]

    def put_first(self, planned: PlannedCell) -> None:
        """Let a cell that was started wait again, before all others."""
        self._waiting.insert(0, planned)

    def drop(self, doom_of: Callable[[PlannedCell], Doom | None]) -> list[tuple[PlannedCell, Doom]]:
        """Take out the cells that will not run, and return each with what `doom_of` says of it."""
        found = [(planned, doom_of(planned)) for planned in self._waiting if self._is_open(planned)]
        doomed = [(planned, doom) for planned, doom in found if doom is not None and self._is_passed(planned)]
        self.forget({planned.place for planned, _ in doomed})
        return doomed

    def forget(self, places: Collection[str]) -> list[PlannedCell]:
        """Take out cells that others have concluded."""
        found = [planned for planned in self._waiting if planned.place in places] if places else []
        if found:
            self._waiting = [planned for planned in self._waiting if planned.place not in places]
        return found

    def _is_open(self, planned: PlannedCell) -> bool:
        return self._gate is None or self._gate.is_open(planned)

    def _is_passed(self, planned: PlannedCell) -> bool:
        return self._gate is None or self._gate.take(planned)

    def _take(self) -> tuple[list[Start], PlannedCell | None]:
        """What starts, and the first cell that has to wait for more devices than it gets."""
        started: list[Start] = []
        head: PlannedCell | None = None
        # The least number of devices that could not be had in this turn: asking for as many again would be in vain.
        too_many = len(self.pool.free) + 1
        for planned in self._waiting:
            if not self.pool.free or too_many <= 1 or (head is not None and self._is_kept_for_head()):
                break
            if planned.cell.search or not self._is_open(planned):
                continue
            need = self.pool.need(planned)
            devices = self.pool.take(need) if need < too_many else None
            too_many = too_many if devices is not None else min(too_many, need)
            if devices is not None and not self._is_passed(planned):
                self.pool.give_back(devices)
            elif devices is not None:
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
