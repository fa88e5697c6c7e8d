"""Cells that differ in their micro-batch alone: when a smaller one runs out of device memory, a larger one would."""

from collections.abc import Iterable, Mapping, Sequence

from benchrunner.cell import canonical_json, identity_overrides
from benchrunner.outcome import Outcome
from benchrunner.plan import PlannedCell
from benchrunner.record import Record

SIZE = "micro_batch_size"
DECIDING = ("oom.device", "oom.disguised")
"""Memory of the host also depends on what else ran there, so `oom.host` decides nothing."""


def family(planned: PlannedCell) -> str:
    """Equal for cells that differ in nothing but their micro-batch."""
    cell = planned.cell
    changed = {key: value for key, value in identity_overrides(cell.overrides).items() if key != SIZE}
    return canonical_json([dict(cell.axes), changed, cell.sizes.seq_len, cell.sizes.devices, cell.sizes.nodes])


def smaller_first(cells: Iterable[PlannedCell]) -> list[PlannedCell]:
    """All smallest of their families, then the next larger ones, …: verdicts come before what they decide."""
    waiting = list(cells)
    ranks: dict[int, int] = {}
    for members in _members(waiting).values():
        ranks |= {id(planned): rank for rank, planned in enumerate(sorted(members, key=_size))}
    return sorted(waiting, key=lambda planned: ranks[id(planned)])


def smaller_first_in_place(cells: Sequence[PlannedCell]) -> list[PlannedCell]:
    """The places of each family stay, and its smaller cells get the earlier ones."""
    turns = {key: iter(sorted(members, key=_size)) for key, members in _members(cells).items()}
    return [next(turns[family(planned)]) for planned in cells]


def _members(cells: Iterable[PlannedCell]) -> dict[str, list[PlannedCell]]:
    found: dict[str, list[PlannedCell]] = {}
    for planned in cells:
        found.setdefault(family(planned), []).append(planned)
    return found


def _size(planned: PlannedCell) -> int:
    return planned.cell.sizes.micro_batch_size


class Inference:
    """Which cells need not run because a smaller one of their family ran out of memory."""

    def __init__(self, cells: Iterable[PlannedCell], records: Mapping[str, Record]) -> None:
        self._smallest: dict[str, PlannedCell] = {}
        for planned in cells:
            if (record := records.get(planned.cell.slug)) is not None:
                self.learn(planned, record)

    def learn(self, planned: PlannedCell, record: Record) -> bool:
        """Take note of a verdict; whether it decides others."""
        if record.reason_code not in DECIDING or record.attempt == 0:
            return False
        key = family(planned)
        before = self._smallest.get(key)
        if before is None or _size(planned) < _size(before):
            self._smallest[key] = planned
        return True

    def verdict(self, planned: PlannedCell) -> Outcome | None:
        """`oom`, inferred, when a smaller cell of the family ran out of memory; else null."""
        smaller = self._smallest.get(family(planned))
        if smaller is None or _size(smaller) >= _size(planned):
            return None
        told = f"{smaller.cell.slug}, the same cell with {SIZE}={_size(smaller)}, ran out of memory"
        return Outcome(
            status="oom",
            reason_code="oom.device",
            reason=f"not run: {told} (--no-infer runs it)",
            flags=["inferred"],
            evidence={"inferred_from": smaller.cell.slug, "cell_id": smaller.cell.cell_id},
        )
