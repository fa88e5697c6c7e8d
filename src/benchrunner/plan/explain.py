"""The terms of one cell's prediction: what `bench plan --explain CELL` shows."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from benchrunner.core.errors import UsageError
from benchrunner.core.parity_cell import as_built
from benchrunner.machine.hardware import Hardware
from benchrunner.plan import predict
from benchrunner.plan.dry_runs import METHOD
from benchrunner.plan.memory import peak_memory
from benchrunner.plan.micro_batches import typical_lengths, typical_sizes
from benchrunner.plan.plan import Plan, PlannedCell
from benchrunner.plan.predict import Prediction
from benchrunner.plan.search import first_probe
from benchrunner.plan.step_time import efficiencies, ideal_seconds, predict_step
from benchrunner.plan.verdict import PREDICTED_ONLY


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """A prediction taken apart."""

    phase: str
    """In which the peak is reached; a formula knows none."""
    memory_bytes: dict[str, int]
    """Category → bytes at the peak of the arithmetic model, or of the formula; they are its sum."""
    outside_bytes: int
    """Of the process, but not the allocator's: no part of the peak."""
    step_s: dict[str, float] = field(default_factory=dict)
    """Resource → seconds of a step; they are its sum. `host` is what the device waits for it."""
    ideal_s: dict[str, float] = field(default_factory=dict)
    """The same at the data sheet's rates; of `host` all that it has to do, the hidden part too."""
    efficiencies: dict[str, float] = field(default_factory=dict)
    """Resource → share of that rate which is reached."""
    parts: dict[str, float] = field(default_factory=dict)
    """Of a formula: its seconds, FLOPs and counts by name, in place of seconds by resource."""
    remarks: tuple[str, ...] = ()
    """What the terms are of, where that is not all of what the plan says of the cell."""


def explain(planned: PlannedCell, hardware: Hardware) -> Explanation:
    """The terms of what the plan predicts: of the formula that it asks, else of the arithmetic model.

    Raises:
        UsageError: nothing is predicted of the cell.
    """
    predicted, cell = _prediction(planned), as_built(first_probe(planned))
    outside = predict.outside_bytes(cell, hardware) if hardware.device_type == "cuda" else 0
    remarks = tuple(_remarks(planned, predicted))
    if parts := predicted.get("parts"):
        return Explanation(
            phase="",
            memory_bytes={name.removesuffix("_bytes"): round(parts[name]) for name in parts if _is_memory(name)},
            outside_bytes=outside,
            parts=_seconds_of(predicted) | {name: value for name, value in parts.items() if not _is_memory(name)},
            remarks=remarks,
        )
    sizes, on_cpu = typical_sizes(cell), hardware.device_type == "cpu"
    peak = peak_memory(cell, on_cpu=on_cpu)
    step = predict_step(cell.config, sizes, hardware, typical_lengths(cell))
    return Explanation(
        phase=peak.phase,
        memory_bytes=peak.terms,
        outside_bytes=outside,
        step_s=step.terms_s if step else {},
        ideal_s=(ideal_seconds(cell.config, sizes, hardware, typical_lengths(cell)) or {}) if step else {},
        efficiencies=efficiencies(hardware.calibration),
        remarks=remarks,
    )


def _is_memory(name: str) -> bool:
    return name.endswith("_bytes")


def _seconds_of(predicted: Prediction) -> dict[str, float]:
    seconds = predicted.get("step_time_s")
    return {} if seconds is None else {"step_s": seconds}


def _prediction(planned: PlannedCell) -> Prediction:
    """What is predicted of a cell, if anything with terms is."""
    predicted = planned.predicted
    if predicted is None:
        raise UsageError(f"--explain: nothing is predicted of {planned.cell.slug}: {planned.reason}")
    if predicted["method"] == "off":
        raise UsageError(
            "--explain: predict=off predicts nothing but the lower bound of memory; predict=analytic, the usual one, "
            "has terms"
        )
    if refused := predicted.get("refused"):
        raise UsageError(f"--explain: {predicted['method']} has no answer: {refused}; predict.formula=own has one")
    return predicted


def _remarks(planned: PlannedCell, predicted: Prediction) -> Iterator[str]:
    if planned.cell.search:
        yield f"What is explained is the first probe of the search, micro_batch_size={predicted['micro_batch_size']}."
    if predicted["method"].startswith(METHOD):
        yield "The peak is that of the dry run. The terms of memory are the arithmetic's, whose sum may be another."


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
