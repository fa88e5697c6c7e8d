"""Two sweeps → the cells that both have, by identity; and why two sweeps cannot be compared at all."""

from dataclasses import dataclass

from benchrunner.compare.side import MeasuredCell, Side
from benchrunner.core.errors import SweepDirError


@dataclass(frozen=True, slots=True, kw_only=True)
class CellPair:
    """One cell on both sides."""

    base: MeasuredCell
    new: MeasuredCell

    @property
    def cell_id(self) -> str:
        """Of both."""
        return self.new.planned.cell.cell_id

    @property
    def slug(self) -> str:
        """The new side's label."""
        return self.new.slug

    @property
    def obstacle(self) -> str | None:
        """Why its numbers cannot be compared, although the cell is the same; None: they can."""
        if self.new.planned.cell.search:
            was, now = self.base.found, self.new.found
            return f"the search found {was} before, and {now} now" if was != now else None
        before, after = self.base.planned.cell.sizes, self.new.planned.cell.sizes
        names = ("world_size", "micro_batch_size", "global_batch_size", "seq_len")
        changed = [f"{name} {getattr(before, name)} → {getattr(after, name)}" for name in names]
        changed = [
            one for one, name in zip(changed, names, strict=True) if getattr(before, name) != getattr(after, name)
        ]
        return f"another size: {', '.join(changed)}" if changed else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairing:
    """Which cells two sweeps have."""

    base: Side
    new: Side
    pairs: list[CellPair]
    vanished: list[MeasuredCell]
    """In the base alone."""
    appeared: list[MeasuredCell]
    """In the new one alone."""


def pair_cells(base: Side, new: Side) -> Pairing:
    """The cells of two sweeps by identity.

    Raises:
        SweepDirError: the sweeps cannot be compared, and why.
    """
    _refuse(base, new)
    common = [cell_id for cell_id in new.cells if cell_id in base.cells]
    if not common:
        raise SweepDirError(f"{base.paths.root} and {new.paths.root} cannot be compared: they have no cell in common")
    pairs = [CellPair(base=base.cells[cell_id], new=new.cells[cell_id]) for cell_id in common]
    if all(pair.obstacle for pair in pairs):
        what = f"no cell has the same sizes ({pairs[0].slug}: {pairs[0].obstacle})"
        raise SweepDirError(f"{base.paths.root} and {new.paths.root} cannot be compared: {what}")
    return Pairing(
        base=base,
        new=new,
        pairs=pairs,
        vanished=[cell for cell_id, cell in base.matrix.items() if cell_id not in new.cells],
        appeared=[cell for cell_id, cell in new.matrix.items() if cell_id not in base.cells],
    )


def _refuse(base: Side, new: Side) -> None:
    if base.paths.root.resolve() == new.paths.root.resolve():
        raise SweepDirError(f"{base.paths.root} is compared with itself")
    before, after = base.plan.hardware, new.plan.hardware
    if (before.device_type, before.device_name) != (after.device_type, after.device_name):
        devices = f"{before.device_name} ({before.name}) and {after.device_name} ({after.name})"
        raise SweepDirError(f"{base.paths.root} and {new.paths.root} cannot be compared: measured on {devices}")
    for side in (base, new):
        for cell in side.cells.values():
            if fault := next((record.fault for record in cell.records if record.fault), None):
                what = f"{cell.slug} was made under the planted fault {fault}"
                raise SweepDirError(f"{side.paths.root} cannot be compared: {what}")
