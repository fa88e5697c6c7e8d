"""Cells that differ in their micro-batch alone: when a smaller one runs out of device memory, a larger one would."""

from collections.abc import Iterable, Mapping

from benchrunner.core.record import Record
from benchrunner.outcome.outcome import Outcome
from benchrunner.plan.plan import PlannedCell
from benchrunner.run.order import FAMILY_KEY, family, micro_batch_of
from benchrunner.run.policy import Policy

DECISIVE_CODES = ("oom.device", "oom.disguised")
"""Memory of the host also depends on what else ran there, so `oom.host` decides nothing."""


class OomInference(Policy):
    """Which cells need not run because a smaller one of their family ran out of memory."""

    def __init__(self, cells: Iterable[PlannedCell], records: Mapping[str, Record]) -> None:
        self._smallest: dict[str, PlannedCell] = {}
        self._families: dict[str, str] = {}
        for planned in cells:
            if (record := records.get(planned.cell.slug)) is not None:
                self.learn(planned, record)

    def learn(self, planned: PlannedCell, record: Record) -> None:
        """Remember the smallest cell of each family that ran out of memory itself."""
        if record.reason_code not in DECISIVE_CODES or record.attempt == 0:
            return
        key = self._family(planned)
        before = self._smallest.get(key)
        if before is None or micro_batch_of(planned) < micro_batch_of(before):
            self._smallest[key] = planned

    def refusal(self, planned: PlannedCell, now_s: float) -> Outcome | None:
        """`oom`, inferred, when a smaller cell of the family ran out of memory."""
        smaller = self._smallest.get(self._family(planned)) if self._smallest else None
        if smaller is None or micro_batch_of(smaller) >= micro_batch_of(planned):
            return None
        why = f"{smaller.cell.slug}, the same cell with {FAMILY_KEY}={micro_batch_of(smaller)}, ran out of memory"
        return Outcome(
            status="oom",
            reason_code="oom.device",
            reason=f"not run: {why} (--no-infer runs it)",
            flags=["inferred"],
            evidence={"inferred_from": smaller.cell.slug, "cell_id": smaller.cell.cell_id},
        )

    def _family(self, planned: PlannedCell) -> str:
        """Asked for every waiting cell after every verdict."""
        slug = planned.cell.slug
        if slug not in self._families:
            self._families[slug] = family(planned)
        return self._families[slug]
