"""What a cell costs beside its measurement: seconds by phase, and what launching takes around them."""

import statistics
from collections.abc import Mapping, Sequence

from benchrunner.record import PHASES, Record

LAUNCH = "launch"
"""From the decision to start until the ranks run, and from their end until the verdict: all that is in no phase."""


def cost_by_phase_s(record: Record) -> dict[str, float] | None:
    """Launch and phases → seconds, of a cell that ran to its end; null for another."""
    if record.status != "ok" or record.wall_s is None or not record.phases_s:
        return None
    spent = {phase: float(record.phases_s.get(phase, 0.0)) for phase in PHASES}
    return {LAUNCH: max(0.0, record.wall_s - sum(spent.values()))} | spent


def median_costs_s(records: Sequence[Record]) -> tuple[int, Mapping[str, float]]:
    """How many cells ran to their end, and the median seconds of each part; of none, nothing."""
    costs = [cost for cost in map(cost_by_phase_s, records) if cost is not None]
    names = (LAUNCH, *PHASES) if costs else ()
    return len(costs), {name: statistics.median(cost[name] for cost in costs) for name in names}


def cost_sentence(records: Sequence[Record]) -> str | None:
    """`Median seconds of a cell (38): launch 3.0, start 4.1, …`; null where nothing ran to its end."""
    count, costs = median_costs_s(records)
    parts = ", ".join(f"{name} {seconds:.2f}" for name, seconds in costs.items())
    return f"Median seconds by phase of the {count} cells that are ok: {parts}." if count else None
