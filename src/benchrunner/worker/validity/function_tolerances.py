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
    logits: float = 0.0
    """Relative error of logits."""
    context: float = 0.0
    """The same of what a context does to them: of the difference between two that end in the same token."""
    cache: float = 0.0
    """Largest relative error of a layer's keys or values, of the prompt or of decoded tokens."""

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


_SIXTEEN_BIT = FunctionErrors(
    gradient=0.1, median=0.063, scale=0.017, loss=0.038, logits=0.025, context=0.04, cache=0.015
)
_FLOAT8 = FunctionErrors(gradient=0.54, median=0.38, scale=0.078, loss=0.55, logits=0.38, context=0.54, cache=0.38)

KNOWN_GOOD: dict[str, FunctionErrors] = {
    "fp32": FunctionErrors(
        gradient=2.1e-5, median=1.4e-5, scale=1e-6, loss=7.3e-5, logits=1e-5, context=3e-5, cache=1e-5
    ),
    "bf16": _SIXTEEN_BIT,
    "bf16-mixed": _SIXTEEN_BIT,
    "fp16-mixed": FunctionErrors(
        gradient=0.024, median=0.009, scale=0.0013, loss=0.002, logits=0.003, context=0.01, cache=0.003
    ),
    "fp8": _FLOAT8,
    "fp8-torchao": _FLOAT8,
    "nf4": _SIXTEEN_BIT,
    "nf4-dq": _SIXTEEN_BIT,
}
"""Precision → the largest errors over known-good runs of it, for models of REFERENCE_LAYERS layers.

Those of Llama-2-7B's blocks, four of them and all 32, and of open_llama_3b and 7b on an H200, eager and compiled,
single, DDP and FSDP, trained and finetuned; in 16 bits small models on a CPU have more, when they are asked with other
values than their own (`louder.py`): LoRA over 4-bit weights 0.1, 0.063 and 0.017.
float16 was seen on a CPU alone, where what is small in its gradients has fewer bits (keys' biases of an adapter).
Forward passes of 8-bit formats are allowed what their gradients have.
At 32 layers those limits are near √2: there it is the scale that decides, which is 1 for a gradient of something else.
"""
REFERENCE_LAYERS = 4
NUM_LAYERS = "num_layers"
"""The depth, beside the errors in a record."""
DROPPED = FunctionErrors(gradient=4.0, median=2.0, scale=0.5, loss=0.5)
"""What dropout p adds, which the formulas do not draw, in units of the spread √(p / (1 − p)) that it gives a value."""


def tolerance(precision: str, num_layers: int, dropout: float = 0.0) -> FunctionErrors | None:
    """What is allowed to a precision at a depth; None where no known-good run was measured.

    `dropout`: the share that a finetuning method's own drops.
    """
    known = KNOWN_GOOD.get(precision)
    if known is None:
        return None
    return at_depth(known, FACTOR, num_layers).plus(DROPPED.scaled(math.sqrt(dropout / (1 - dropout))))


def at_depth(errors: FunctionErrors, factor: float, num_layers: int) -> FunctionErrors:
    """`factor` times the errors, brought from REFERENCE_LAYERS to another depth.

    Rounding turns a vector by a random walk: what is left of its direction, c, decays exponentially with depth, and of
    two vectors of one length the relative difference is √(2 · (1 − c)): √depth while it is small, never above √2. Seen
    on an H200 with 4 and 32 layers: bf16 0.045 and 0.12, float8 0.38 and 0.95 (their c 0.93 and 0.56).
    """
    depth = max(1.0, num_layers / REFERENCE_LAYERS)
    turned = {name: _turned(getattr(errors, name), factor**2 * depth) for name in DIRECTIONS}
    scale = 1 - math.exp(-factor * depth * errors.scale)
    return FunctionErrors(**turned, scale=scale, loss=factor * math.sqrt(depth) * errors.loss)


DIRECTIONS = ("gradient", "median", "logits", "context", "cache")
"""The errors that are relative differences of vectors."""


def _turned(error: float, times: float) -> float:
    """The relative difference after so many times the steps of the walk that made `error`."""
    steps = -math.log(max(1 - error**2 / 2, MOST_TURNED))
    return math.sqrt(2 * (1 - math.exp(-times * steps)))


MOST_TURNED = 1e-6
"""What is left of a direction that has nothing to do with the right one."""


def collect(records: Sequence[Path]) -> dict[str, FunctionErrors]:
    """The largest errors by precision over records, each brought to REFERENCE_LAYERS."""
    worst: dict[str, FunctionErrors] = {}
    for path in records:
        record = read_json(path, Record, limit_bytes=RECORD_BYTES, version=SCHEMA_VERSION)
        errors = record.checks["function"].get("errors") if "function" in record.checks else None
        if errors is None or record.status != "ok":
            continue
        name, layers = record.axes["precision"], errors[NUM_LAYERS]
        found = FunctionErrors(**{part.name: errors.get(part.name, 0.0) for part in fields(FunctionErrors)})
        worst[name] = worst.get(name, FunctionErrors()).worst(_at_reference(found, layers))
    return worst


def _at_reference(errors: FunctionErrors, num_layers: float) -> FunctionErrors:
    """Errors of another depth as REFERENCE_LAYERS would have them."""
    less = 1 / max(1.0, num_layers / REFERENCE_LAYERS)
    turned = {name: _turned(getattr(errors, name), less) for name in DIRECTIONS}
    scale = 1 - math.exp(less * math.log(max(1 - errors.scale, MOST_TURNED)))
    return FunctionErrors(**turned, scale=scale, loss=errors.loss * math.sqrt(less))


if __name__ == "__main__":
    for name, errors in collect([Path(word) for word in sys.argv[1:]]).items():
        values = ", ".join(f"{key}={value:.2g}" for key, value in asdict(errors).items())
        print(f'    "{name}": FunctionErrors({values}),')
