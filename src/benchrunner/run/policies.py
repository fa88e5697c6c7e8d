"""The policies of a run, made from the options and the sweep's settings, and asked as one."""

from collections.abc import Mapping, Sequence

from benchrunner.core.faults import format_fault
from benchrunner.core.record import Record
from benchrunner.machine.hardware import Hardware
from benchrunner.outcome.outcome import Outcome
from benchrunner.plan.plan import Plan, PlannedCell
from benchrunner.run.budget import Budget
from benchrunner.run.circuit_breaker import CircuitBreaker
from benchrunner.run.infer_oom import OomInference
from benchrunner.run.options import RunOptions
from benchrunner.run.policy import Policy
from benchrunner.run.repeats import Repeats
from benchrunner.run.retries import Retries


class Policies:
    """Several policies; where they disagree the first one decides."""

    def __init__(self, policies: Sequence[Policy]) -> None:
        self._policies = policies

    def learn(self, planned: PlannedCell, record: Record) -> None:
        """See Policy."""
        for policy in self._policies:
            policy.learn(planned, record)

    def refused(self, planned: PlannedCell, outcome: Outcome) -> None:
        """See Policy."""
        for policy in self._policies:
            policy.refused(planned, outcome)

    def refusal(self, planned: PlannedCell, now_s: float) -> Outcome | None:
        """See Policy."""
        for policy in self._policies:
            if planned.cell.search and not policy.decides_searches:
                continue
            if (outcome := policy.refusal(planned, now_s)) is not None:
                return outcome
        return None

    def ending(self, now_s: float) -> str | None:
        """See Policy."""
        return next(filter(None, (policy.ending(now_s) for policy in self._policies)), None)

    def rerun(self, planned: PlannedCell, outcome: Outcome) -> str | None:
        """See Policy."""
        return next(filter(None, (policy.rerun(planned, outcome) for policy in self._policies)), None)

    def notes(self, num_refused: Mapping[str, int], *, at_end: bool = False) -> list[str]:
        """See Policy; `num_refused`: reason code → cells."""
        found = (policy.note(num_refused.get(policy.code or "", 0), at_end=at_end) for policy in self._policies)
        return [note for note in found if note is not None]

    @property
    def stopped_by(self) -> str | None:
        """See Policy."""
        return next((policy.stopped_by for policy in self._policies if policy.stopped_by), None)


def make_policies(
    plan: Plan,
    records: Mapping[str, Record],
    hardware: Hardware,
    options: RunOptions,
    searches: Sequence[Policy] = (),
) -> Policies:
    """What follows for a cell from others is asked before what stops the sweep, and that before what time is left."""
    policies: list[Policy] = [Retries(plan.settings.retries), Repeats(records.values()), *searches]
    if options.infer:
        policies.append(OomInference(plan.cells, comparable(records, options)))
    policies.append(CircuitBreaker(plan.settings.brake, plan.cells))
    if options.budget_s is not None:
        policies.append(Budget(options.budget_s, options.clock.now(), hardware.device_type))
    return Policies(policies)


def comparable(records: Mapping[str, Record], options: RunOptions) -> dict[str, Record]:
    """The records that were made under the faults that are planted now."""
    return {slug: one for slug, one in records.items() if one.fault == format_fault(options.fault_in(slug))}
