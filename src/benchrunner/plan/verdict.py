"""What is decided about a cell before launch: struck out, ruled out, too few devices, too little memory, or run."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from benchrunner.core.cell import Cell
from benchrunner.core.record import Grounds
from benchrunner.core.units import GIB
from benchrunner.machine.hardware import Hardware
from benchrunner.plan import predict
from benchrunner.plan.rules import Rule, find_rule

Decision = Literal["run", "unsupported", "skipped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A decision about one cell, and why."""

    verdict: Decision = "run"
    reason_code: str | None = None
    reason: str | None = None
    """One sentence; None only for `run`."""
    flags: list[str] = field(default_factory=list)
    """`probe:<rule>`: ruled out, but run by `compat=probe`. `memory_tight`: an estimate says it may not fit."""
    predicted: predict.Prediction | None = None
    evidence: Grounds | None = None
    """The rule and its evidence."""


class Preflight:
    """Decides about one cell after the other; predictions of equal work are shared."""

    def __init__(self, hardware: Hardware, rules: Sequence[Rule], launch: bool, num_cores: int) -> None:
        self.hardware, self.rules, self.launch, self.num_cores = hardware, rules, launch, num_cores
        self.predictions: dict[tuple[Any, ...], predict.Prediction] = {}

    def decide(self, cell: Cell, excluded_reason: str | None) -> Verdict:
        """The verdict: struck out, ruled out, too few devices, too little memory, hopeless on a CPU, else run."""
        if excluded_reason:
            return Verdict(verdict="skipped", reason_code="skipped.excluded", reason=excluded_reason)
        ruling = find_rule(cell, self.hardware, self.rules)
        predicted = self._predict(cell)
        if ruling and cell.config.compat != "probe":
            return Verdict(
                verdict="unsupported",
                reason_code=ruling.code,
                reason=ruling.reason_for(cell),
                predicted=predicted,
                evidence={"rule": ruling.id, "evidence": ruling.evidence},
            )
        flags = [f"probe:{ruling.id}"] if ruling else []
        checks = (
            ("skipped.devices", self._lacks_devices),
            ("skipped.predicted_oom", self._lacks_memory),
            ("skipped.devices", self._lacks_accelerator),
        )
        for code, check in checks:
            reason = check(cell, predicted)
            if reason:
                return Verdict(verdict="skipped", reason_code=code, reason=reason, flags=flags, predicted=predicted)
        if self._is_tight(cell, predicted):
            flags.append("memory_tight")
        return Verdict(flags=flags, predicted=predicted)

    def _predict(self, cell: Cell) -> predict.Prediction:
        sections = ("model", "workload", "strategy", "precision", "activation_checkpointing", "optimizer", "generate")
        key = (*(id(getattr(cell.config, name)) for name in sections), cell.config.attention, cell.sizes)
        if key not in self.predictions:
            self.predictions[key] = predict.predict(cell, self.hardware)
        return self.predictions[key]

    def _lacks_devices(self, cell: Cell, predicted: predict.Prediction) -> str | None:
        here, needed = self.hardware, cell.sizes.devices
        if self.launch and not here.is_present:
            return f"{here.name} is not in this machine; bench plan can plan for it"
        if here.device_type == "cpu" or needed <= here.num_devices:
            return None
        return f"needs {_count(needed, 'device')} a node, {here.num_devices} visible"

    def _lacks_accelerator(self, cell: Cell, predicted: predict.Prediction) -> str | None:
        if self.hardware.device_type != "cpu" or cell.axes["workload"] == "parity":
            return None
        least_s = predict.cpu_time_s(cell.config, predict.typical_sizes(cell), self.num_cores)
        if least_s <= cell.config.timeout_s:
            return None
        return (
            f"no accelerator is visible, and its steps take at least {least_s / 3600:.1f} h on "
            f"{_count(self.num_cores, 'CPU core')}, longer than timeout_s={cell.config.timeout_s:g}"
        )

    def _lacks_memory(self, cell: Cell, predicted: predict.Prediction) -> str | None:
        limit, needed = self._memory_bytes(cell), predicted["peak_memory_bytes"]
        if limit is None or needed <= limit:
            return None
        whose = "a rank's share of the RAM is" if self.hardware.device_type == "cpu" else "the device has"
        if cell.config.memory_limit_gib and limit == int(cell.config.memory_limit_gib * GIB):
            whose = "memory_limit_gib is"
        return f"parameters, gradients and optimizer state alone need {_size(needed)} a device, {whose} {_size(limit)}"

    def _memory_bytes(self, cell: Cell) -> int | None:
        """Memory of one rank."""
        whole = self.hardware.memory_bytes
        if whole is not None and self.hardware.device_type == "cpu":
            whole //= cell.sizes.devices
        limit_gib = cell.config.memory_limit_gib
        limits = [value for value in (whole, int(limit_gib * GIB) if limit_gib else None) if value is not None]
        return min(limits, default=None)

    def _is_tight(self, cell: Cell, predicted: predict.Prediction) -> bool:
        limit = self._memory_bytes(cell)
        return limit is not None and predicted["peak_memory_bytes"] + predicted["activation_bytes"] > limit


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _size(num_bytes: int) -> str:
    return f"{num_bytes / GIB:.1f} GiB" if num_bytes >= GIB else f"{num_bytes / 2**20:.1f} MiB"
