"""The frozen matrix: every cell with its verdict, decided before anything runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from typing_extensions import TypedDict

from benchrunner import __version__
from benchrunner.core.cell import Cell
from benchrunner.core.paths import place_of
from benchrunner.core.schema import LauncherConfig
from benchrunner.machine.hardware import Hardware
from benchrunner.plan.verdict import Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedCell(Verdict):
    """A cell and what was decided about it."""

    cell: Cell
    left_out: tuple[str, ...] = ()
    """Overrides of the sweep that this cell does not read: `devices=2`."""
    repeat: int = 1
    """Which process of the cell is meant, where it is measured in several. Not in the plan: it has each cell once."""

    probe_of: str = ""
    """The slug of the search that added the cell to its sweep (`plan/search.py`); empty: it is of the matrix."""

    @property
    def place(self) -> str:
        """Where this process is kept under `cells/`."""
        return place_of(self.cell.slug, self.repeat)


class ModelCard(TypedDict):
    """What the option file of a model says, where overrides changed the model."""

    num_layers: int
    num_parameters: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a sweep is run, whatever its cells are: see the keys of the same names in `core/schema.py`."""

    out_dir: str
    launcher: LauncherConfig
    brake: int | None
    retries: int
    repeats: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Every cell of a sweep, in order."""

    cells: list[PlannedCell]
    hardware: Hardware
    sweep_name: str
    arguments: list[str]
    """What `bench` was called with: `-m`, the sweep file, the overrides."""
    created_at: str
    """ISO 8601, UTC."""
    benchrunner: str = __version__
    cards: Mapping[str, ModelCard] = field(default_factory=dict)
    """Model → its card, of each model that overrides changed; a plan of an older version has none."""
    notes: Sequence[str] = ()
    """What a reader must know of what the overrides became."""

    @property
    def settings(self) -> Settings:
        """What is one for the whole sweep. No matrix can vary it, so every cell's configuration says the same."""
        config = self.cells[0].cell.config
        return Settings(
            out_dir=config.out_dir,
            launcher=config.launcher,
            brake=config.brake,
            retries=config.retries,
            repeats=config.repeats,
        )

    def processes(self, repeats: int | None = None) -> list[PlannedCell]:
        """Every process of every cell: all first ones, then all second ones, …; `repeats` None: as the sweep says.

        A search has one: what is measured are its probes.
        """
        return processes_of(self.cells, repeats or self.settings.repeats)


def processes_of(cells: Sequence[PlannedCell], repeats: int) -> list[PlannedCell]:
    """All first processes of these cells, then all second ones, …"""
    return [
        replace(planned, repeat=repeat) if repeat > 1 else planned
        for repeat in range(1, repeats + 1)
        for planned in cells
        if repeat == 1 or not planned.cell.search
    ]
