"""The rank that held the others up."""

from collections.abc import Sequence

from benchrunner.core.record import PHASES, Phase
from benchrunner.outcome.evidence import Evidence, stack


def laggard(evidence: Evidence) -> tuple[int, Phase]:
    """The rank that holds the others up, and its phase: furthest behind in phases, then in steps, then in no wait."""

    def place(rank: int) -> tuple[int, int, int]:
        return PHASES.index(evidence.phase(rank)), evidence.beats.get(rank, 0), _waits(stack(evidence.tail(rank)))

    rank = min(range(evidence.world_size), key=place)
    return rank, evidence.phase(rank)


def _waits(frames: Sequence[str]) -> int:
    """Whether a rank's stack is one of waiting for others: 2 surely, 1 perhaps (gradients are reduced in it), 0 no."""
    if any("torch/distributed" in frame or "validity/exchange" in frame for frame in frames):
        return 2
    return int(any("in _engine_run_backward" in frame or "torch/cuda/" in frame for frame in frames[:1]))
