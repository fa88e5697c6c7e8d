"""The frozen matrix: every cell with its verdict, decided before anything runs, and its file `plan.json`."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchrunner import __version__
from benchrunner.core.cell import Cell
from benchrunner.machine.hardware import Hardware
from benchrunner.plan.verdict import Verdict

if TYPE_CHECKING:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedCell(Verdict):
    """A cell and what was decided about it."""

    cell: Cell


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Every cell of a sweep, in order."""

    cells: list[PlannedCell]
    hardware: Hardware
    sweep_name: str
    words: list[str]
    created_at: str
    """ISO 8601, UTC."""
    benchrunner: str = __version__

    @property
    def out_dir(self) -> str:
        """Where the sweep's directory goes; all cells agree."""
        return str(self.cells[0].cell.config["out_dir"])


# --- making it -----------------------------------------------------------------------------------------------------


# --- the file ------------------------------------------------------------------------------------------------------


# --- bench plan ----------------------------------------------------------------------------------------------------
