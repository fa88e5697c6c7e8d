"""The terms of one cell's prediction: what `bench plan --explain CELL` shows."""

from collections.abc import Sequence
from dataclasses import dataclass

from benchrunner.core.errors import UsageError
from benchrunner.core.parity_cell import as_built
from benchrunner.machine.hardware import Hardware
from benchrunner.plan import predict
from benchrunner.plan.memory import peak_memory
from benchrunner.plan.micro_batches import typical_lengths, typical_sizes
from benchrunner.plan.plan import Plan, PlannedCell
from benchrunner.plan.step_time import efficiencies, ideal_seconds, predict_step
from benchrunner.plan.verdict import PREDICTED_ONLY


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """A prediction taken apart."""

    phase: str
    """In which the peak is reached."""
    memory_bytes: dict[str, int]
    """Category → bytes at the peak of the arithmetic model; they are its sum."""
    outside_bytes: int
    """Of the process, but not the allocator's: no part of the peak."""
    step_s: dict[str, float]
    """Resource → seconds of a step; they are its sum. `host` is what the device waits for it."""
    ideal_s: dict[str, float]
    """The same at the data sheet's rates; of `host` all that it has to do, the hidden part too."""
    efficiencies: dict[str, float]
    """Resource → share of that rate which is reached."""


def explain(planned: PlannedCell, hardware: Hardware) -> Explanation:
    """The terms of the arithmetic model, whatever the plan was predicted by."""
    cell = as_built(planned.cell)
    sizes, on_cpu = typical_sizes(cell), hardware.device_type == "cpu"
    peak = peak_memory(cell, on_cpu=on_cpu)
    step = predict_step(cell.config, sizes, hardware, typical_lengths(cell))
    return Explanation(
        phase=peak.phase,
        memory_bytes=peak.terms,
        outside_bytes=predict.outside_bytes(cell, hardware) if hardware.device_type == "cuda" else 0,
        step_s=step.terms_s if step else {},
        ideal_s=(ideal_seconds(cell.config, sizes, hardware, typical_lengths(cell)) or {}) if step else {},
        efficiencies=efficiencies(hardware.calibration),
    )


def find_cell(plan: Plan, name: str) -> PlannedCell:
    """The cell that `name` means: its number in the table, its id or the beginning of one, or its slug.

    Raises:
        UsageError: none, or several.
    """
    if name.isdigit() and 1 <= int(name) <= len(plan.cells):
        return plan.cells[int(name) - 1]
    found = [one for one in plan.cells if one.cell.slug == name or one.cell.cell_id.startswith(name)]
    if len(found) == 1:
        return found[0]
    problem = "no cell of the plan" if not found else f"{len(found)} cells of the plan begin so"
    raise UsageError(f"--explain {name}: {problem}; give a number from 1 to {len(plan.cells)}, an id or a slug")


OBJECTIVES = ("tokens/s", "mfu")


def rank(cells: Sequence[PlannedCell], objective: str) -> list[PlannedCell]:
    """Cells that run, or are asked a prediction of alone, and are predicted to fit, the best first.

    Those whose objective is not known are left out.

    Raises:
        UsageError: an unknown objective.
    """
    if objective not in OBJECTIVES:
        raise UsageError(f"--maximise {objective}: choose one of {', '.join(OBJECTIVES)}")
    asked = [one for one in cells if one.verdict == "run" or one.reason_code == PREDICTED_ONLY]
    fitting = [one for one in asked if (one.predicted or {}).get("fit") == "fits" and _value(one, objective) > 0]
    return sorted(fitting, key=lambda one: -_value(one, objective))


def _value(planned: PlannedCell, objective: str) -> float:
    predicted = planned.predicted or {}
    if objective == "mfu":
        return predicted.get("mfu") or 0.0
    return (predicted.get("tokens_per_second_per_device") or 0.0) * planned.cell.sizes.world_size
