"""Short names of cells: what varies in their plan, in a few words, in place of a slug that says everything."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from benchrunner.core.axes import AXES
from benchrunner.core.cell import Cell, format_value, identity_overrides
from benchrunner.plan.plan import PlannedCell

SEPARATOR = " · "


def short_labels(planned: Sequence[PlannedCell]) -> dict[str, str]:
    """Slug → `ddp · bf16 · devices 2 · 66cc70`: what tells it from the others, and the digits that `bench show` takes.

    Unlike the slug it holds no option or setting that all cells share; a single cell is called by its model.
    """
    cells = [one.cell for one in planned]
    axes = [axis for axis in AXES if len({cell.axes[axis] for cell in cells}) > 1]
    changed = [identity_overrides(cell.overrides) for cell in cells]
    deaf = [{word.partition("=")[0] for word in one.left_out} for one in planned]
    leaves = [key for key in dict.fromkeys(key for one in changed for key in one) if _varies(key, changed, deaf)]
    return {
        cell.slug: SEPARATOR.join([*_words(cell, own, axes, leaves), cell.cell_id[:6]])
        for cell, own in zip(cells, changed, strict=True)
    }


def _varies(key: str, changed: Sequence[Mapping[str, Any]], deaf: Sequence[Collection[str]]) -> bool:
    """Whether the cells that read the key have different values there."""
    values = {repr(own.get(key)) if key in own else "" for own, left_out in zip(changed, deaf, strict=True)
              if key not in left_out}  # fmt: skip
    return len(values) > 1


def _words(cell: Cell, own: Mapping[str, Any], axes: Sequence[str], leaves: Sequence[str]) -> list[str]:
    """Options that vary, and settings that this cell has and not all have; without any, the model."""
    options = [_option(axis, cell.axes[axis]) for axis in axes]
    settings = [f"{key.rpartition('.')[2]} {format_value(own[key])}" for key in leaves if key in own]
    return [*options, *settings] or [cell.axes["model"]]


def _option(axis: str, name: str) -> str:
    """An option as it is called; what it is an option of, where its name alone says nothing."""
    return f"{SHORT[axis]} {name}" if axis in SHORT else name


SHORT = {"activation_checkpointing": "checkpointing"}
"""Axis → what stands before its options, which are called `none` and `full`."""
