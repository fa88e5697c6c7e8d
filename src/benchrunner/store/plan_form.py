"""The form of plan.json: what it holds and where, down to every leaf of the configurations."""

from dataclasses import fields
from typing import TYPE_CHECKING, Any, NotRequired

from typing_extensions import TypedDict

from benchrunner.core.record import Grounds
from benchrunner.core.schema import SECTIONS, Config, PredictConfig
from benchrunner.machine.hardware import Hardware
from benchrunner.plan.plan import ModelCard
from benchrunner.plan.predict import Prediction
from benchrunner.plan.verdict import Decision

if TYPE_CHECKING:
    Scalars = dict[str, Any]
    Sections = dict[str, list[Any]]
    Common = dict[str, Any]
else:
    _SCALARS = {item.name: item.type for item in fields(Config) if item.name not in SECTIONS}
    Scalars = TypedDict("Scalars", _SCALARS, total=False)
    Sections = TypedDict("Sections", {name: list[kind] for name, kind in SECTIONS.items()}, total=False)
    # `predict` was a name alone in plans of 0.1.0.
    Common = TypedDict("Common", {**_SCALARS, **SECTIONS, "predict": PredictConfig | str}, total=False)


class CellEntry(TypedDict):
    """One cell: what it does not share with the others, and what was decided about it."""

    cell_id: str
    config_digest: str
    slug: str
    options: NotRequired[dict[str, int]]
    """Key of the configuration → its place in that key's list of sections."""
    scalars: NotRequired[Scalars]
    overrides: NotRequired[dict[str, Any]]
    sizes: list[int]
    """In the order of `Sizes`."""
    verdict: Decision
    reason_code: NotRequired[str | None]
    reason: NotRequired[str | None]
    flags: NotRequired[list[str]]
    predicted: NotRequired[Prediction | None]
    evidence: NotRequired[Grounds | None]
    left_out: NotRequired[list[str]]
    """Overrides of the sweep that the cell does not read."""


class PlanFile(TypedDict):
    """The frozen matrix, each shared part once."""

    schema_version: int
    benchrunner: str
    created_at: str
    sweep_name: str
    words: list[str]
    hardware: Hardware
    common: Common
    """Sections and scalars that all cells share."""
    settings: dict[str, Any]
    """Changed leaves that do not tell cells apart."""
    cells: list[CellEntry]
    sections: Sections
    """Key of the configuration → the different sections that cells have there."""
    cards: NotRequired[dict[str, ModelCard]]
    """Model → its card, of each model that overrides changed."""
    notes: NotRequired[list[str]]
    """What a reader must know of what the overrides became."""
