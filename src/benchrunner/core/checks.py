"""Which validity checks must decide in which cell, one that says nothing being no pass; and how long they may take.

The names are those of `worker/validity/checks.py` and of what workloads add. A check that is not here may abstain.
"""

from collections.abc import Callable, Mapping

from benchrunner.core import arithmetic
from benchrunner.core.cell import Cell
from benchrunner.core.rank_result import Check

LEAST_BUDGET_S = 5.0
BUDGET_SHARE = 0.2


def budget_s(window_s: float) -> float:
    """Seconds that all checks together may take after a window of so many: a fifth of it, so that the most expensive
    cells are not the least checked.
    """
    return max(LEAST_BUDGET_S, BUDGET_SHARE * window_s)


def _is_timed(cell: Cell) -> bool:
    return bool(cell.axes["workload"] != "parity")


def _has_gradients(cell: Cell) -> bool:
    return _is_timed(cell) and cell.axes["workload"] in arithmetic.GRADIENT_WORKLOADS


def _reduces(cell: Cell) -> bool:
    return _has_gradients(cell) and cell.sizes.world_size > 1


def _is_sharded(cell: Cell) -> bool:
    return _is_timed(cell) and bool(cell.config.strategy.kind == "fsdp")


def _is_compiled(cell: Cell) -> bool:
    return _is_timed(cell) and cell.axes["compile"] != "eager"


def _chooses_in_graph(cell: Cell) -> bool:
    config = cell.config
    is_whole = config.generate.unit == "token" and config.compile.scope == "model"
    return bool(is_whole and cell.axes["compile"] != "eager")


MINIMUM: dict[str, Callable[[Cell], bool]] = {
    "shape": _is_timed,
    "first_loss": _has_gradients,
    "precision": _is_timed,
    "formats": _is_timed,
    "labels": lambda cell: _is_timed(cell) and cell.axes["compile"] != "thunder",
    "sharded": _is_sharded,
    "work": _is_timed,
    "data": _is_timed,
    "steps": _is_timed,
    "trains": _has_gradients,
    "gradients_reduced": _reduces,
    "recompute": _has_gradients,
    "compiled": _is_compiled,
    "function": _is_timed,
    "optimizer": _has_gradients,
    "logits": lambda cell: cell.axes["workload"] == "forward",
    "cache": lambda cell: cell.axes["workload"] == "generate",
    "choice": lambda cell: cell.axes["workload"] == "generate" and not _chooses_in_graph(cell),
}
"""Check → the cells in which it must decide. What `parity` says of itself has a flag of its own, `unjudged`."""


def undecided(cell: Cell, checks: Mapping[str, Check]) -> list[str]:
    """The checks that should have decided in this cell and did not, or were never asked."""
    return [name for name, is_due in MINIMUM.items() if is_due(cell) and not _decides(checks.get(name))]


def num_decided(checks: Mapping[str, Check]) -> int:
    """How many checks said yes or no."""
    return sum(_decides(check) for check in checks.values())


def _decides(check: Check | None) -> bool:
    return check is not None and check["ok"] is not None
