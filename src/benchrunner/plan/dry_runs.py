"""`predict=dry_run`: memory from the worker's own step in place of arithmetic, where it can be had.

A compiled cell is its eager twin's dry run and what the compiler changes by the arithmetic, with what a compiled block
keeps as it was captured: under fake tensors no compiler compiles. What is refused keeps its arithmetic, and says why,
as does a compiled cell that recomputes blocks in training: its twin peaks in operations that a compiler writes anew.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from benchrunner.core import arithmetic
from benchrunner.core.axes import AXES
from benchrunner.core.cell import Cell, cell_to_dict
from benchrunner.core.schema import CompileConfig, Config
from benchrunner.launch import dry_runs
from benchrunner.machine.hardware import Hardware
from benchrunner.plan.kept import attends_by_formula
from benchrunner.plan.memory import peak_of
from benchrunner.plan.micro_batches import longest_sizes
from benchrunner.plan.plan import PlannedCell
from benchrunner.plan.predict import Prediction, with_fit
from benchrunner.plan.search import first_probe

METHOD = "dry_run"
MARGIN, COMPILED_MARGIN = 0.03, 0.04
ASKED = (*AXES, "generate")
"""Sections that can change the answer; with `attention` and the sizes they are what is asked."""


def apply_dry_runs(cells: Sequence[PlannedCell], hardware: Hardware) -> list[PlannedCell]:
    """The cells, those that ask for a dry run and are to be run with its prediction; of a search its first probe's.

    Where a search begins is for arithmetic to say, which is instant.
    """
    chosen = [one for one in cells if one.verdict == "run" and one.cell.config.predict.name == METHOD]
    if not chosen:
        return list(cells)
    found = {id(one): answer for one in chosen if (answer := refusal_of(one.cell, hardware))}
    asked = [one for one in chosen if id(one) not in found]
    answers = dry_runs.dry_run([question_of(first_probe(one)) for one in asked], hardware.torch, _tell) if asked else []
    found |= dict(zip(map(id, asked), answers, strict=True))
    better = {id(one): replace(one, predicted=_predicted(one, found[id(one)], hardware)) for one in chosen}
    return [better.get(id(one), one) for one in cells]


def question_of(cell: Cell) -> dict[str, Any]:
    """The cell as the dry run is asked about it: its longest micro-batch, without what cannot change the answer."""
    blank = replace(Config(), **{name: getattr(cell.config, name) for name in ASKED}, attention=cell.config.attention)
    blank = replace(blank, compile=CompileConfig(name=cell.config.compile.name))
    asked = replace(
        cell, cell_id="", config_digest="", slug="", overrides={}, config=blank,
        sizes=replace(longest_sizes(cell), devices=cell.sizes.world_size, nodes=1),
    )  # fmt: skip
    return cell_to_dict(asked)


REWRITTEN: dry_runs.Answer = {"refused": "the peak of a compiled block that is recomputed is the compiler's"}
BY_FORMULA: dry_runs.Answer = {
    "refused": "attention that no fused kernel takes (fp32 in groups of heads) is made of other kernels on a CPU"
}


def refusal_of(cell: Cell, hardware: Hardware) -> dry_runs.Answer | None:
    """Why nobody is asked; None: the dry run says itself what it cannot model."""
    if cell.config.attention == "auto" and attends_by_formula(cell.config, on_cpu=hardware.device_type == "cpu"):
        return BY_FORMULA
    return REWRITTEN if is_rewritten(cell) else None


def is_rewritten(cell: Cell) -> bool:
    """Whether the eager twin's peak is of operations that the compiler writes anew."""
    recomputes = cell.config.activation_checkpointing.name != "none"
    return is_translated(cell) and recomputes and cell.axes["workload"] in arithmetic.GRADIENT_WORKLOADS


def is_translated(cell: Cell) -> bool:
    """Whether the dry run is of the eager twin."""
    return cell.axes["compile"] == "inductor"


def _predicted(planned: PlannedCell, answer: dry_runs.Answer, hardware: Hardware) -> Prediction:
    predicted, cell = planned.predicted or Prediction(), first_probe(planned)
    if "refused" in answer:
        also = f"; {predicted['note']}" if "note" in predicted else ""
        return {**predicted, "note": f"no dry run: {answer['refused']}{also}"}
    change = _compiled_change(cell, answer.get("compiled_block_bytes")) if is_translated(cell) else 0
    found: Prediction = {
        **predicted,
        "method": METHOD if not is_translated(cell) else f"{METHOD}+analytic",
        "peak_memory_bytes": int(answer["peak_memory_bytes"]) + change,
        "reserved_memory_bytes": int(answer["reserved_memory_bytes"]) + change,
        "least_memory_bytes": int(answer["least_memory_bytes"]) + change,
        "margin": COMPILED_MARGIN if is_translated(cell) else MARGIN,
        "phase": str(answer["phase"]),
    }
    return with_fit(found, cell, hardware)


def _compiled_change(cell: Cell, block_bytes: int | None) -> int:
    """Bytes that arithmetic says the compiler adds to the peak; it saves, so they are mostly negative.

    `block_bytes` is what a compiled block keeps as it was captured; None: as arithmetic has it.
    """
    eager = replace(cell.config, compile=replace(cell.config.compile, name="eager"))
    sizes = longest_sizes(cell)
    return peak_of(cell.config, sizes, block_bytes).total_bytes - peak_of(eager, sizes).total_bytes


def _tell(done: int, total: int) -> None:
    print(f"dry runs: {done} of {total}", file=sys.stderr)
