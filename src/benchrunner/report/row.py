"""A planned cell as reports see it: with its record, or with the plan's verdict in its place."""

from dataclasses import dataclass

from benchrunner.core.cell import Sizes
from benchrunner.core.record import Metrics, Record
from benchrunner.plan.plan import ModelCard, PlannedCell
from benchrunner.plan.search import probe_of
from benchrunner.plan.verdict import PREDICTED_ONLY

NO_RECORD = "skipped.interrupted"
"""The code of a cell that was to be run and has no record: the sweep is still running, or was stopped before it."""


UNDECIDED = frozenset({NO_RECORD, "skipped.budget", "skipped.brake", "skipped.disk"})
"""Codes of cells that the sweep did not get to; `bench resume` runs them."""


NUM_LAYERS = "model.num_layers"


NONE = "none"
"""What a text column says where there is nothing to say (an empty field would be a blank)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A planned cell, its record when there is one, and the sweep that it belongs to."""

    planned: PlannedCell
    record: Record | None
    sweep: str
    hardware: str
    device_name: str
    torch: str | None
    problem: str | None = None
    """Why the record file could not be used."""
    card: ModelCard | None = None
    """Of the model, where overrides changed it."""
    commit: str | None = None
    """Of the checkout that the sweep was begun with."""

    @property
    def model(self) -> str:
        """The model as it ran: `llama2-7b (2 of 32 layers)`."""
        name, layers = self.planned.cell.axes["model"], self.planned.cell.config.model.num_layers
        if NUM_LAYERS not in self.planned.cell.overrides:
            return name
        whole = f" of {self.card['num_layers']}" if self.card else ""
        return f"{name} ({layers}{whole} layers)"

    @property
    def is_waiting(self) -> bool:
        """Whether the cell was to run and nobody can say yet what becomes of it."""
        return self.planned.verdict == "run" and self.status == "skipped" and self.reason_code in UNDECIDED

    @property
    def is_prediction(self) -> bool:
        """Whether the cell is its prediction alone (`predict=only`)."""
        return self.reason_code == PREDICTED_ONLY

    @property
    def log_folder(self) -> str:
        """Where the logs of its last attempt are, from the sweep's directory; `none` when it was never launched."""
        if self.record is None or not self.record.attempt:
            return NONE
        return f"cells/{self.record.slug}/attempt-{self.record.attempt}"

    @property
    def status(self) -> str:
        """The record's status; without a record the plan's verdict."""
        if self.record:
            return self.record.status
        return "skipped" if self.planned.verdict == "run" else self.planned.verdict

    @property
    def reason_code(self) -> str:
        """Why, as a code; `none` when ok."""
        if self.record:
            return self.record.reason_code or NONE
        return self.planned.reason_code or NO_RECORD

    @property
    def reason(self) -> str:
        """Why, in a sentence; `none` when ok."""
        if self.record:
            return self.record.reason or NONE
        return self.problem or self.planned.reason or "no record: not run yet, or interrupted before it ended"

    @property
    def flags(self) -> list[str]:
        """What a reader should know before trusting the number; a planted fault says so."""
        flags = [*self.planned.flags, *(self.record.flags if self.record else [])]
        fault = [f"fault:{self.record.fault}"] if self.record and self.record.fault else []
        return list(dict.fromkeys(flags + fault))

    @property
    def sizes(self) -> Sizes | None:
        """Of the cell; of a search those of what it has found, None where that is nothing (yet)."""
        cell = self.planned.cell
        if cell.search is None:
            return cell.sizes
        search = ((self.record.evidence if self.record else None) or {}).get("search")
        found = search["micro_batch_size"] if search else None
        return probe_of(cell, found, ()).sizes if found else None

    @property
    def metrics(self) -> Metrics:
        """The headline numbers; none unless the cell is ok and no fault was planted: anything else measured nothing."""
        record = self.record
        return record.metrics if record and record.status == "ok" and not record.fault else {}
