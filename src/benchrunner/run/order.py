"""In which order cells run: the most informative first, smaller micro-batches before larger ones."""

import heapq
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations

from benchrunner.core.cell import Cell, canonical_json, identity_overrides
from benchrunner.plan.plan import PlannedCell

SIZE_KEYS = ("micro_batch_size", "global_batch_size", "seq_len", "devices", "nodes")
"""Settings that count as the sizes which they lead to."""

Items = frozenset[tuple[str, object]]
"""Names with their values."""


def order_by_information(cells: Iterable[PlannedCell], costs_s: Mapping[str, float]) -> list[PlannedCell]:
    """The most informative first: next is always the cell that shows the most values of axes and settings that no cell
    before it showed, among equals the most new pairs of values, among equals the cheapest.

    So every value is seen first, then every pair; what is left then adds nothing but itself and comes cheap before
    expensive. `costs_s` is slug → seconds.
    """
    waiting = list(cells)
    items = _distinguishing_items(waiting)
    seen: set[tuple[str, object]] = set()
    seen_pairs: set[frozenset[tuple[str, object]]] = set()
    ordered: list[PlannedCell] = []
    queue = [(_gain(own, seen, seen_pairs), costs_s[one.cell.slug], place) for place, (one, own) in enumerate(items)]
    heapq.heapify(queue)
    while queue:
        gain, cost_s, place = heapq.heappop(queue)
        planned, own = items[place]
        now = _gain(own, seen, seen_pairs)
        if now != gain:  # others have shown some of it since; gains only shrink
            heapq.heappush(queue, (now, cost_s, place))
            continue
        ordered.append(planned)
        seen |= own
        seen_pairs |= _pairs(own)
    return ordered


def _gain(own: Items, seen: set[tuple[str, object]], seen_pairs: set[frozenset[tuple[str, object]]]) -> tuple[int, int]:
    """Values and pairs that the cell would show first, negative: the smallest comes first."""
    return -len(own - seen), -len(_pairs(own) - seen_pairs)


def _pairs(own: Items) -> set[frozenset[tuple[str, object]]]:
    return {frozenset(pair) for pair in combinations(own, 2)}


def _distinguishing_items(cells: list[PlannedCell]) -> list[tuple[PlannedCell, Items]]:
    """Each cell with its values that not all cells have."""
    everything = [items_of(planned.cell) for planned in cells]
    shared = frozenset.intersection(*everything) if everything else frozenset()
    return [(planned, own - shared) for planned, own in zip(cells, everything, strict=True)]


def items_of(cell: Cell) -> Items:
    """Everything that can tell the cell from another: options, sizes and changed leaves, each with its value."""
    return frozenset(_items(cell))


def _items(cell: Cell) -> Iterable[tuple[str, object]]:
    yield from cell.axes.items()
    for name in ("micro_batch_size", "global_batch_size", "seq_len", "world_size"):
        yield name, getattr(cell.sizes, name)
    changed = identity_overrides(cell.overrides)
    yield from ((key, canonical_json(value)) for key, value in changed.items() if key not in SIZE_KEYS)


FAMILY_KEY = "micro_batch_size"
"""What the members of a family differ in."""


def family(planned: PlannedCell) -> str:
    """Equal for cells that differ in nothing but their micro-batch."""
    cell = planned.cell
    changed = {key: value for key, value in identity_overrides(cell.overrides).items() if key != FAMILY_KEY}
    return canonical_json([dict(cell.axes), changed, cell.sizes.seq_len, cell.sizes.devices, cell.sizes.nodes])


def smaller_first(cells: Iterable[PlannedCell]) -> list[PlannedCell]:
    """All smallest of their families, then the next larger ones, …: verdicts come before what they decide."""
    waiting = list(cells)
    ranks: dict[int, int] = {}
    for members in _members(waiting).values():
        ranks |= {id(planned): rank for rank, planned in enumerate(sorted(members, key=micro_batch_of))}
    return sorted(waiting, key=lambda planned: ranks[id(planned)])


def smaller_first_in_place(cells: Sequence[PlannedCell]) -> list[PlannedCell]:
    """The places of each family stay, and its smaller cells get the earlier ones."""
    turns = {key: iter(sorted(members, key=micro_batch_of)) for key, members in _members(cells).items()}
    return [next(turns[family(planned)]) for planned in cells]


def _members(cells: Iterable[PlannedCell]) -> dict[str, list[PlannedCell]]:
    found: dict[str, list[PlannedCell]] = {}
    for planned in cells:
        found.setdefault(family(planned), []).append(planned)
    return found


def micro_batch_of(planned: PlannedCell) -> int:
    """Samples a device a forward pass: what the members of a family differ in."""
    return planned.cell.sizes.micro_batch_size
