"""What a validity check says, and the facts that checks judge."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import Tensor

from benchrunner.core import arithmetic
from benchrunner.core.cell import Cell
from benchrunner.core.rank_result import Check, RankResult, Scalar
from benchrunner.worker.context import Context
from benchrunner.worker.engines.built import Built
from benchrunner.worker.validity.exchange import Exchange
from benchrunner.worker.validity.probe import Probes
from benchrunner.worker.validity.sampling import Samples

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from benchrunner.worker.steps.decoding import Decoding
    from benchrunner.worker.steps.training_loop import TrainingLoop


MOST = 1e9
"""Stands in the record for an error that is not finite, which JSON cannot write."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The word of one check: ok true, false, or None where it cannot tell; texts and numbers for a reader."""

    ok: bool | None
    expected: Scalar = None
    observed: Scalar = None
    note: str | None = None
    errors: Mapping[str, float] | None = None
    """What was measured against a tolerance."""

    def as_dict(self) -> Check:
        """As it stands in the record; note and errors only where there are some."""
        found: Check = {"ok": self.ok, "expected": self.expected, "observed": self.observed}
        if self.note is not None:
            found["note"] = self.note
        if self.errors is not None:
            found["errors"] = {
                name: min(value, MOST) if value == value else MOST for name, value in self.errors.items()
            }
        return found


def unknown(why: str) -> Finding:
    """A check that does not apply, or cannot tell."""
    return Finding(ok=None, note=why)


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """How much came out of a workload."""

    claimed: int
    seen: float
    what: str
    """What was counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """One rank's facts. What a workload does not have is empty, and the checks that need it do not apply."""

    context: Context
    exchange: Exchange
    """By which checks ask the other ranks."""
    built: Built
    result: RankResult
    """What the workload measured: step times, losses, compile counters, tokens."""
    probes: Probes
    rest_bytes: int
    """Of all parameters on this rank between the steps."""
    scale_bytes: int = 0
    """Of the scales of 4-bit weights, which no strategy shards."""
    initial: Samples = field(default_factory=dict)
    """Parameters before the first step."""
    final: Samples = field(default_factory=dict)
    """Parameters after the last step."""
    packed: Samples = field(default_factory=dict)
    """Bits and scales of 4-bit weights."""
    optimizer: "Optimizer | None" = None
    num_steps: int = 0
    """Optimizer steps applied, or passes run."""
    consumed: Sequence[Tensor] = ()
    """Tokens [B, T] of every micro-batch of the measured steps and the warm-up."""
    targets: Sequence[Tensor] = ()
    """What each of them was trained on; nothing without a loss."""
    own_losses: Sequence[float] = ()
    """Of every step so far, this rank's."""
    output: Output | None = None
    """What came out of a workload without a loss."""
    loop: "TrainingLoop | None" = None
    """What can be asked for more steps, in the very form that was measured."""
    logits: Callable[[Tensor], Tensor] | None = None
    """The same of a forward pass: a batch's logits."""
    decoding: "Decoding | None" = None
    """The same of a generation."""

    @property
    def cell(self) -> Cell:
        """The label that the run has to deserve."""
        return self.context.cell

    @property
    def finetunes(self) -> bool:
        """Whether the base is frozen."""
        return self.cell.config.workload.name in arithmetic.PEFT_WORKLOADS

    @property
    def several_ranks(self) -> bool:
        """Whether there is anybody to agree with."""
        return self.context.world_size > 1
