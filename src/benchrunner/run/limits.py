"""How long a cell may go without progress in each phase: what the overrides say, else by what it is expected to take.

Progress is a change of phase or one more step of any rank. A limit is an order of magnitude above the expectation, so
that one that is hit means a hang; `timeout_s` bounds the cell as a whole.
"""

from benchrunner.core.record import PHASES
from benchrunner.plan.costs import compiler_s, expected_phases_s
from benchrunner.plan.plan import PlannedCell

SLACK = 10.0
"""Limit ÷ expectation."""

FLOOR_S = 60.0
"""On top, however little is expected: a network that connects late, a busy host."""
START_FLOOR_S = 180.0
"""The same until every rank is there: a cold and shared file system, from which torch is read."""

RECOMPILING_PHASES = ("warmup", "measure", "check")
"""Where a compiler that meets a new shape works once more, unexpectedly."""


def phase_limits_s(planned: PlannedCell, device_type: str) -> dict[str, float]:
    """Phase → seconds without progress after which the cell is stopped."""
    chosen = planned.cell.config.limits
    default_s = default_limits_s(planned, device_type)
    return {phase: float(getattr(chosen, f"{phase}_s") or default_s[phase]) for phase in PHASES}


def default_limits_s(planned: PlannedCell, device_type: str) -> dict[str, float]:
    """Phase → the limit where the overrides set none."""
    expected_s = expected_phases_s(planned, device_type)
    again_s = dict.fromkeys(RECOMPILING_PHASES, compiler_s(planned.cell, device_type))
    floors_s = {PHASES[0]: START_FLOOR_S}
    return {
        phase: floors_s.get(phase, FLOOR_S) + SLACK * (expected_s[phase] + again_s.get(phase, 0.0)) for phase in PHASES
    }
