"""How far a measured model may be from the formulas in fp32: three times the error of known-good runs, by precision.

The records of any sweep of healthy cells have the errors, under `checks.function.errors`:

    bench +sweeps=cpu-full; bench +sweeps=finetune-matrix …
    python -m benchrunner.worker.validity.function_tolerances outputs/latest/cells/*/record.json

of which the last prints the entries of KNOWN_GOOD.
"""

import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from benchrunner.core.files import read_json
from benchrunner.core.record import RECORD_BYTES, SCHEMA_VERSION, Record

FACTOR = 3.0


@dataclass(frozen=True, slots=True)
class FunctionErrors:
    """What is measured of a cell, or allowed to one."""

    gradient: float = 0.0
    """Largest relative error of a gradient over all parts of all parameters (norm of the difference ÷ norm)."""
    median: float = 0.0
    """The median of the same."""
    scale: float = 0.0
    """Median over the parts of | projection on the right gradient ÷ the right one's norm − 1 |."""
    loss: float = 0.0
    """Largest difference of a loss, nats."""

    def scaled(self, factor: float) -> "FunctionErrors":
        """All of them times a factor."""
        return FunctionErrors(*(factor * value for value in asdict(self).values()))

    def plus(self, other: "FunctionErrors") -> "FunctionErrors":
        """The sum of each."""
        pairs = zip(asdict(self).values(), asdict(other).values(), strict=True)
        return FunctionErrors(*(sum(pair) for pair in pairs))

    def worst(self, other: "FunctionErrors") -> "FunctionErrors":
        """The larger of each."""
        pairs = zip(asdict(self).values(), asdict(other).values(), strict=True)
        return FunctionErrors(*(max(pair) for pair in pairs))

    def exceeding(self, limits: "FunctionErrors") -> list[str]:
        """Names of those that are over their limits."""
        return [part.name for part in fields(self) if not getattr(self, part.name) <= getattr(limits, part.name)]


KNOWN_GOOD: dict[str, FunctionErrors] = {
    "fp32": FunctionErrors(gradient=1e-4, median=1e-5, scale=1e-5, loss=1e-5),
    "bf16": FunctionErrors(gradient=0.06, median=0.03, scale=0.01, loss=0.02),
    "bf16-mixed": FunctionErrors(gradient=0.06, median=0.03, scale=0.01, loss=0.02),
    "fp16-mixed": FunctionErrors(gradient=0.006, median=0.003, scale=0.001, loss=0.002),
    "fp8-torchao": FunctionErrors(gradient=0.25, median=0.13, scale=0.04, loss=0.03),
    "nf4": FunctionErrors(gradient=0.06, median=0.03, scale=0.01, loss=0.02),
    "nf4-dq": FunctionErrors(gradient=0.06, median=0.03, scale=0.01, loss=0.02),
}
"""Precision → the largest errors over known-good runs of it, for models of REFERENCE_LAYERS layers.

For the time being those of small models on a CPU with a margin of two (fp32: of ten), since no others were measured:
bf16 has 0.031, 0.0085, 0.0033 and 0.014 there, fp8-torchao 0.14, 0.095, 0.018 and 0.0035. fp8 by Transformer Engine,
which no CPU computes, is measured and not judged until its errors on a GPU are here.
"""
REFERENCE_LAYERS = 4
NUM_LAYERS = "num_layers"
"""The depth, beside the errors in a record."""
DROPPED = FunctionErrors(gradient=4.0, median=2.0, scale=0.5, loss=0.0)
"""What dropout p adds, which the formulas do not draw, in units of the spread √(p / (1 − p)) that it gives a value."""


def tolerance(precision: str, num_layers: int, dropout: float = 0.0) -> FunctionErrors | None:
    """What is allowed to a precision at a depth; None where no known-good run was measured.

    Rounding errors of layers add up like a random walk. `dropout`: the share that a finetuning method's own drops.
    """
    known = KNOWN_GOOD.get(precision)
    if known is None:
        return None
    rounding = known.scaled(FACTOR * max(1.0, math.sqrt(num_layers / REFERENCE_LAYERS)))
    return rounding.plus(DROPPED.scaled(math.sqrt(dropout / (1 - dropout))))


def collect(records: Sequence[Path]) -> dict[str, FunctionErrors]:
    """The largest errors by precision over records, each brought to REFERENCE_LAYERS."""
    worst: dict[str, FunctionErrors] = {}
    for path in records:
        record = read_json(path, Record, limit_bytes=RECORD_BYTES, version=SCHEMA_VERSION)
        errors = record.checks["function"].get("errors") if "function" in record.checks else None
        if errors is None or record.status != "ok":
            continue
        name, layers = record.axes["precision"], errors[NUM_LAYERS]
        found = FunctionErrors(**{part.name: errors[part.name] for part in fields(FunctionErrors)})
        found = found.scaled(1 / max(1.0, math.sqrt(layers / REFERENCE_LAYERS)))
        worst[name] = worst.get(name, FunctionErrors()).worst(found)
    return worst


if __name__ == "__main__":
    for name, errors in collect([Path(word) for word in sys.argv[1:]]).items():
        values = ", ".join(f"{key}={value:.2g}" for key, value in asdict(errors).items())
        print(f'    "{name}": FunctionErrors({values}),')
