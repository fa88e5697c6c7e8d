"""What happens before the first launch: read what is there, settle the environment, decide which cells are left.

Every cell of the plan has its record after this, or waits in the queue, or was not selected.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain, groupby

from benchrunner.core.paths import SweepPaths
from benchrunner.core.record import Record
from benchrunner.launch.job import Launcher
from benchrunner.machine import environment
from benchrunner.machine.hardware import Hardware, detect
from benchrunner.outcome.judge import judge
from benchrunner.plan.costs import expected_cell_s
from benchrunner.plan.plan import Plan, PlannedCell
from benchrunner.run import resume
from benchrunner.run.attempts import Attempts
from benchrunner.run.circuit_breaker import FAILURE_STATUSES
from benchrunner.run.device_use import DeviceUse
from benchrunner.run.events import Events
from benchrunner.run.ledger import Ledger
from benchrunner.run.options import RunOptions
from benchrunner.run.order import order_by_information, smaller_first, smaller_first_in_place
from benchrunner.run.policies import Policies, comparable, make_policies
from benchrunner.run.progress import Progress
from benchrunner.run.schedule import Queue
from benchrunner.run.searches import Searches
from benchrunner.run.shared_source import SharedSource
from benchrunner.run.source import Source
from benchrunner.run.verdicts import Verdicts
from benchrunner.store import environment_file
from benchrunner.store.records import read_records
from benchrunner.store.runs import read_runs


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What the loop works with."""

    queue: Queue
    attempts: Attempts
    devices: DeviceUse
    policies: Policies
    searches: Searches
    verdicts: Verdicts
    ledger: Ledger
    progress: Progress
    source: Source
    events: Events


def prepare(plan: Plan, paths: SweepPaths, launcher: Launcher, options: RunOptions) -> Prepared:
    """Record what is decided, take over what was finished, line up the rest.

    Raises:
        SweepDirError: the sweep was measured with another machine or software (resume).
    """
    progress = Progress(options.clock)
    ledger = _open_ledger(plan, paths, options, progress)
    hardware = options.hardware or (detect() if options.resume else plan.hardware)
    devices = DeviceUse(hardware, options, progress, launcher)
    searches = Searches(plan, paths, _settled(plan, ledger, options))
    policies = make_policies(plan, ledger.records, hardware, options, [searches])
    source = _source(paths, ledger, policies, progress, hardware, options)
    events = Events(options.events)
    verdicts = Verdicts(ledger, progress, policies, options, events, source)
    left = _selected(plan, ledger, hardware, options)
    record_decided(plan, left, ledger)
    if options.share is None:  # else an attempt without a record may be at work, elsewhere
        left = _without_finished(left, paths, ledger, verdicts, progress)
        left = _without_hopeless(left, devices, policies, verdicts, options.clock.now())
    queue = _line_up(left, _failed_before(ledger), devices, hardware, options, source)
    _conclude_impossible(queue, devices, verdicts)
    return Prepared(
        queue=queue,
        attempts=Attempts(paths, hardware, options, devices.pool, names_devices=devices.are_named),
        devices=devices,
        policies=policies,
        searches=searches,
        verdicts=verdicts,
        ledger=ledger,
        progress=progress,
        source=source,
        events=events,
    )


def _source(
    paths: SweepPaths,
    ledger: Ledger,
    policies: Policies,
    progress: Progress,
    hardware: Hardware,
    options: RunOptions,
) -> Source:
    """Where the cells come from: the plan alone, or what other loops over it leave."""
    if options.share is None:
        return Source()
    return SharedSource(paths, options.share, ledger, policies, progress, hardware.device_type, options.clock)


def _conclude_impossible(queue: Queue, devices: DeviceUse, verdicts: Verdicts) -> None:
    """Of a shared plan: conclude the cells that no machine like this one can run, unless somebody else does."""
    for planned, obstacle in queue.drop(devices.obstacle):
        verdicts.conclude(planned, obstacle)


def _open_ledger(plan: Plan, paths: SweepPaths, options: RunOptions, progress: Progress) -> Ledger:
    """The records so far, and the environment that further ones are made in; what is damaged is noted."""
    now = options.environment or environment.collect()
    records, problems = read_records(plan.processes(options.repeats), paths)
    settled, flags, notes = environment_file.settle_environment(
        paths, now, records, resume=options.resume, mix=options.mix, same_commit=options.repeats is not None
    )
    for note in (*problems, *notes, *filter(None, [read_runs(paths)[1]])):
        progress.note(note)
    return Ledger(paths, records, settled, flags)


def _selected(plan: Plan, ledger: Ledger, hardware: Hardware, options: RunOptions) -> list[PlannedCell]:
    """The cells without a verdict that is kept, of those that this run is about."""
    processes = plan.processes(options.repeats)
    left = resume.left_to_do(processes, ledger.records, hardware, options.planted, keep_inferred=options.infer)
    return [planned for planned in left if options.selection.takes(planned, ledger.records.get(planned.place))]


def _settled(plan: Plan, ledger: Ledger, options: RunOptions) -> dict[str, Record]:
    """The records of cells that are not run again: what searches know from before."""
    known = comparable(ledger.records, options)
    left = resume.left_to_do(plan.cells, known, plan.hardware, options.planted, keep_inferred=options.infer)
    again = {planned.place for planned in left}
    return {slug: one for slug, one in known.items() if slug not in again}


def record_decided(plan: Plan, left: Iterable[PlannedCell], ledger: Ledger) -> None:
    """The verdicts of the plan itself."""
    known = {planned.place for planned in left} | set(ledger.records)
    decided = [planned for planned in plan.cells if planned.verdict != "run"]
    ledger.decided(planned for planned in decided if planned.cell.slug not in known)


def _without_finished(
    cells: Iterable[PlannedCell], paths: SweepPaths, ledger: Ledger, verdicts: Verdicts, progress: Progress
) -> list[PlannedCell]:
    """Conclude the attempts that reached their end although bench did not live to write their records."""
    left = []
    for planned in cells:
        record = ledger.records.get(planned.place)
        found = resume.recover(planned, paths, known=record.attempt if record else 0, note=progress.note)
        if found is None:
            left.append(planned)
        else:
            verdicts.conclude(planned, judge(found[0]), *found)
    return left


def _without_hopeless(
    cells: Iterable[PlannedCell], devices: DeviceUse, policies: Policies, verdicts: Verdicts, now_s: float
) -> list[PlannedCell]:
    """Conclude the cells that this machine can never run, or whose verdict is known by now."""
    left = []
    for planned in cells:
        if (obstacle := devices.obstacle(planned)) is not None:
            verdicts.conclude(planned, obstacle)
        elif (refusal := policies.refusal(planned, now_s)) is not None:
            verdicts.refuse(planned, refusal)
        else:
            left.append(planned)
    return left


def _failed_before(ledger: Ledger) -> frozenset[str]:
    """The cells that are tried again: after the others, which may be healthy and are not to wait for them."""
    return frozenset(slug for slug, record in ledger.records.items() if record.status in FAILURE_STATUSES)


def _line_up(
    cells: list[PlannedCell],
    last: frozenset[str],
    devices: DeviceUse,
    hardware: Hardware,
    options: RunOptions,
    source: Source,
) -> Queue:
    """Smaller micro-batches before larger ones; under a budget the most informative cells first.

    All that in each round: repeats of a cell are spread over the sweep, so that their spread holds what drifts.
    """
    rounds = [list(members) for _, members in groupby(cells, key=lambda planned: planned.repeat)]
    if options.budget_s is None:
        ordered = [smaller_first(members) for members in rounds]
        return Queue(chain.from_iterable(ordered), devices.pool, last=last, gate=source)
    costs_s = {planned.cell.slug: expected_cell_s(planned, hardware.device_type) for planned in cells}
    ordered = [smaller_first_in_place(order_by_information(members, costs_s)) for members in rounds]
    return Queue(chain.from_iterable(ordered), devices.pool, largest_first=False, last=last, gate=source)
