"""What is decided about a cell before launch: struck out, ruled out, too few devices, too little memory, or run."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from benchrunner.core.axes import PREDICT_ONLY
from benchrunner.core.cell import Cell
from benchrunner.core.lengths import is_padded
from benchrunner.core.record import Grounds
from benchrunner.core.units import GIB
from benchrunner.machine.hardware import Hardware
from benchrunner.plan import predict
from benchrunner.plan.micro_batches import typical_sizes
from benchrunner.plan.rules import Rule, Ruling, find_rule
from benchrunner.plan.window import data_bytes, num_steps, steps_key

Decision = Literal["run", "unsupported", "skipped"]

PREDICTED_ONLY = "skipped.predict_only"
"""The code of a cell that is its prediction alone."""

NO_PREDICTION = "skipped.no_prediction"
"""The code of one that the formula has no answer for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A decision about one cell, and why."""

    verdict: Decision = "run"
    reason_code: str | None = None
    reason: str | None = None
    """One sentence; None only for `run`."""
    flags: list[str] = field(default_factory=list)
    """`probe:<rule>`: ruled out, but run by `compat=probe`. `memory_tight`: an estimate says it may not fit.
    `oom_audit`: it says that it will not, and the cell is run to audit it."""
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
            return _excluded(excluded_reason)
        if cell.config.predict.name == PREDICT_ONLY:
            return self._predicted_only(cell)
        ruling = find_rule(cell, self.hardware, self.rules)
        predicted = self.predicted(cell)
        if ruling and cell.config.compat != "probe":
            return _ruled_out(cell, ruling, predicted)
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
        passed = Verdict(flags=flags, predicted=predicted)
        return passed if cell.config.predict.name == "dry_run" else self.judge_memory(cell, passed)

    def decide_search(self, cell: Cell, excluded_reason: str | None) -> Verdict | None:
        """The verdict on a search itself, whatever its probes would be; None: it is that of the first of them."""
        if excluded_reason:
            return _excluded(excluded_reason)
        about = [rule for rule in self.rules if any(one.key == "micro_batch_search" for one in rule.conditions)]
        ruling = find_rule(cell, self.hardware, about)
        return _ruled_out(cell, ruling, None) if ruling and cell.config.compat != "probe" else None

    def _predicted_only(self, cell: Cell) -> Verdict:
        """Whatever could run here or not: nothing is to run, and the prediction is the answer."""
        predicted = self.predicted(cell)
        if refused := predicted.get("refused"):
            reason = f"{predicted['method']} has no answer: {refused}"
            return Verdict(verdict="skipped", reason_code=NO_PREDICTION, reason=reason, predicted=predicted)
        reason = f"predicted by {predicted['method']}, and nothing is to be launched (predict=only)"
        return Verdict(verdict="skipped", reason_code=PREDICTED_ONLY, reason=reason, predicted=predicted)

    def judge_memory(self, cell: Cell, passed: Verdict) -> Verdict:
        """The verdict on a cell that passed everything else, by its predicted peak: skipped, flagged, or as it is."""
        predicted, flags = passed.predicted or predict.Prediction(), list(passed.flags)
        reason = self._will_not_fit(cell, predicted)
        if reason:
            code = "skipped.predicted_oom"
            return Verdict(verdict="skipped", reason_code=code, reason=reason, flags=flags, predicted=predicted)
        if predicted.get("fit") in ("fits_with_retries", "tight", "does_not_fit"):
            flags.append("memory_tight")
        if cell.config.predict.skip_oom and predicted.get("fit") == "does_not_fit":
            flags.append("oom_audit")
        return Verdict(flags=flags, predicted=predicted)

    def predicted(self, cell: Cell) -> predict.Prediction:
        """What is known of a cell before it runs."""
        sections = (
            "model", "workload", "strategy", "precision", "compile", "activation_checkpointing", "engine", "optimizer",
            "generate", "predict",
        )  # fmt: skip
        own = cell.config.attention, cell.config.memory_limit_gib, cell.sizes
        drawn = (cell.config.seed, id(cell.config.measure)) if is_padded(cell) else ()
        key = (*(id(getattr(cell.config, name)) for name in sections), *own, *drawn)
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
        least_s = predict.cpu_time_s(cell.config, typical_sizes(cell), self.num_cores)
        if least_s <= cell.config.timeout_s:
            return None
        return (
            f"no accelerator is visible, and its steps take at least {least_s / 3600:.1f} h on "
            f"{_count(self.num_cores, 'CPU core')}, longer than timeout_s={cell.config.timeout_s:g}"
        )

    def _lacks_memory(self, cell: Cell, predicted: predict.Prediction) -> str | None:
        limit, needed = predict.memory_bytes(cell, self.hardware), predicted["lower_bound_bytes"]
        drawn = data_bytes(cell)
        if limit is None or needed + drawn <= limit:
            return None
        whose = "a rank's share of the RAM is" if self.hardware.device_type == "cpu" else "the device has"
        if cell.config.memory_limit_gib and limit == int(cell.config.memory_limit_gib * GIB):
            whose = "memory_limit_gib is"
        state, has = "parameters, gradients and optimizer state", f"{whose} {_size(limit)}"
        if needed > limit:
            return f"{state} alone need {_size(needed)} a device, {has}"
        return (
            f"the data of {sum(num_steps(cell))} steps are drawn before the window and need {_size(drawn)} a device "
            f"beside {_size(needed)} of {state}, {has}; take fewer {steps_key(cell)}"
        )

    def _will_not_fit(self, cell: Cell, predicted: predict.Prediction) -> str | None:
        """`predict.skip_oom`: an estimate beyond its margin is enough, but for the cells that audit it."""
        options = cell.config.predict
        if not options.skip_oom or predicted.get("fit") != "does_not_fit" or is_audited(cell):
            return None
        peak, margin, capacity = (
            predicted["peak_memory_bytes"],
            predicted.get("margin", 0.0),
            predicted["capacity_bytes"],
        )
        assert capacity is not None
        return (
            f"predicted by {predicted['method']} to need {_size(peak)} a device, give or take {margin:.0%}, "
            f"where {_size(capacity)} are left for it (predict.skip_oom=false runs it)"
        )


def _excluded(reason: str) -> Verdict:
    return Verdict(verdict="skipped", reason_code="skipped.excluded", reason=reason)


def _ruled_out(cell: Cell, ruling: Ruling, predicted: predict.Prediction | None) -> Verdict:
    return Verdict(
        verdict="unsupported",
        reason_code=ruling.code,
        reason=ruling.reason_for(cell),
        predicted=predicted,
        evidence={"rule": ruling.id, "evidence": ruling.evidence},
    )


def is_audited(cell: Cell) -> bool:
    """Whether a cell that is predicted not to fit is run all the same, to see whether that is true."""
    return int(cell.cell_id, 16) % int(cell.config.predict.audit_every) == 0


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _size(num_bytes: int) -> str:
    return f"{num_bytes / GIB:.1f} GiB" if num_bytes >= GIB else f"{num_bytes / 2**20:.1f} MiB"
