"""How far a combination may be from fp32 at small scale: three times the error of a known-good run, by precision.

Measured by

    bench +sweeps=parity-cpu                    (Transformer Engine: bench +sweeps=parity-cuda precision=fp8)
    python -m benchrunner.worker.workloads.parity_tolerances outputs/latest/cells/*/record.json

of which the second prints the entries of KNOWN_GOOD.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchrunner.core.files import read_json
from benchrunner.core.record import RECORD_BYTES, SCHEMA_VERSION, Metrics, Record

FACTOR = 3.0


@dataclass(frozen=True, slots=True)
class Errors:
    """What is measured of a run, or allowed to one."""

    gradient: float
    """Largest relative error of a trainable tensor's gradient (norm of the difference ÷ norm of the reference)."""
    cosine: float
    """Smallest cosine of a gradient with its reference, as its distance from 1."""
    curve: float
    """Largest difference of the loss in 30 steps, nats."""

    def scaled(self, factor: float) -> "Errors":
        """All of them times a factor."""
        return Errors(self.gradient * factor, self.cosine * factor, self.curve * factor)

    def within(self, limits: "Errors") -> bool:
        """Whether no error exceeds its limit."""
        return self.gradient <= limits.gradient and self.cosine <= limits.cosine and self.curve <= limits.curve


KNOWN_GOOD: dict[str, Errors] = {
    "fp32": Errors(8.2e-07, 3.3e-13, 9.5e-07),
    "bf16": Errors(0.019, 1.9e-04, 0.17),
    "bf16-mixed": Errors(0.013, 7.6e-05, 0.0040),
    "fp16-mixed": Errors(0.0030, 4.6e-06, 6.3e-04),
    "fp8": Errors(0.23, 0.026, 0.2),
    "fp8-torchao": Errors(0.18, 0.015, 0.23),
    "nf4": Errors(0.015, 1.1e-04, 0.0019),
    "nf4-dq": Errors(0.015, 1.1e-04, 0.0021),
}
"""Precision → the largest errors over known-good runs of it; a precision that is not here is measured, not judged.

From sweeps/parity-cpu.yaml on an AMD EPYC without bfloat16 instructions, torch 2.13.0, torchao 0.18.0, bitsandbytes
0.50.2; fp8, which no CPU computes, from sweeps/parity-cuda.yaml on H200s, torch 2.11.0, Transformer Engine 2.20.2; and
fp16-mixed from there too, where the compiled cell had up to twice the errors of a CPU on one day, and less on another
(docs/results/2026-11-30-h200-healthy-cells.md). The others' errors on H200s: docs/results/2026-11-21-h200-parity.md.
"""


def tolerance(precision: str) -> Errors | None:
    """What is allowed to a precision; None where no known-good run was measured."""
    known = KNOWN_GOOD.get(precision)
    return None if known is None else known.scaled(FACTOR)


def collect(records: Sequence[Path]) -> dict[str, Errors]:
    """The largest errors by precision over parity records."""
    worst: dict[str, Errors] = {}
    for path in records:
        record = read_json(path, Record, limit_bytes=RECORD_BYTES, version=SCHEMA_VERSION)
        found, name = _measured(record.metrics), record.axes["precision"]
        if record.axes["workload"] != "parity" or found is None:
            continue
        before = worst.get(name, Errors(0.0, 0.0, 0.0))
        worst[name] = Errors(
            max(found.gradient, before.gradient), max(found.cosine, before.cosine), max(found.curve, before.curve)
        )
    return worst


def _measured(metrics: Metrics) -> Errors | None:
    gradient, cosine = metrics.get("parity_gradient_error"), metrics.get("parity_cosine")
    curve = metrics.get("parity_curve_error")
    return None if gradient is None or cosine is None or curve is None else Errors(gradient, 1 - cosine, curve)


if __name__ == "__main__":
    for name, errors in collect([Path(word) for word in sys.argv[1:]]).items():
        print(f'    "{name}": Errors({errors.gradient:.2g}, {errors.cosine:.2g}, {errors.curve:.2g}),')
