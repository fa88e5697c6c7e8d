"""Cells that differ in their micro-batch alone: when a smaller one runs out of device memory, a larger one would."""

from collections.abc import Iterable, Mapping

from benchrunner.core.record import Record
from benchrunner.outcome.judge import Outcome
from benchrunner.plan.plan import PlannedCell
from benchrunner.run.order import FAMILY_KEY, family, micro_batch_of

DECISIVE_CODES = ("oom.device", "oom.disguised")
"""Memory of the host also depends on what else ran there, so `oom.host` decides nothing."""


class OomInference:
    """Which cells need not run because a smaller one of their family ran out of memory."""

    def __init__(self, cells: Iterable[PlannedCell], records: Mapping[str, Record]) -> None:
        self._smallest: dict[str, PlannedCell] = {}
        for planned in cells:
            if (record := records.get(planned.cell.slug)) is not None:
                self.learn(planned, record)

    def learn(self, planned: PlannedCell, record: Record) -> bool:
        """Take note of a verdict; whether it decides others."""
        if record.reason_code not in DECISIVE_CODES or record.attempt == 0:
            return False
        key = family(planned)
        before = self._smallest.get(key)
        if before is None or micro_batch_of(planned) < micro_batch_of(before):
            self._smallest[key] = planned
        return True

    def verdict(self, planned: PlannedCell) -> Outcome | None:
        """`oom`, inferred, when a smaller cell of the family ran out of memory; else None."""
        smaller = self._smallest.get(family(planned))
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
