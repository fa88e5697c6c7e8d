"""Cells of a plan that several loops share, each on devices of its own: what the others do is seen in their files."""

from collections.abc import Sequence

from benchrunner.core.errors import SweepDirError
from benchrunner.core.paths import SweepPaths
from benchrunner.core.record import Record
from benchrunner.outcome.judge import judge
from benchrunner.outcome.outcome import Outcome
from benchrunner.plan.costs import expected_cell_s
from benchrunner.plan.plan import PlannedCell
from benchrunner.run import resume
from benchrunner.run.attendance import Attendance
from benchrunner.run.claims import Claims
from benchrunner.run.clock import Clock, now_utc
from benchrunner.run.ledger import Ledger
from benchrunner.run.options import Share
from benchrunner.run.policies import Policies
from benchrunner.run.progress import Progress
from benchrunner.run.schedule import Queue
from benchrunner.run.source import Source
from benchrunner.run.utilization import Utilization
from benchrunner.store.claims_round import latest_round
from benchrunner.store.records import read_record
from benchrunner.store.workers import WorkerFile

LOOK_INTERVAL_S = 2.0
"""Between two looks at what the others have done."""

GIVEN_BACK_CODES = ("skipped.interrupted",)
"""How an attempt ends that its own allocation cut short."""


class SharedSource(Source):
    """Cells are taken by claims; verdicts of the others teach the policies here as if they had been made here."""

    grace_s = 1.0

    def __init__(
        self,
        paths: SweepPaths,
        share: Share,
        ledger: Ledger,
        policies: Policies,
        progress: Progress,
        device_type: str,
        clock: Clock,
    ) -> None:
        self._paths, self._ledger, self._policies, self._progress = paths, ledger, policies, progress
        self._device_type, self._clock = device_type, clock
        self._ends_s = None if share.time_s is None else clock.now() + share.time_s
        self._attendance = Attendance(paths, WorkerFile(worker=share.worker, job=share.job, started_at=now_utc()))
        self._claims = Claims(paths.claims(share.round), share.worker, self._attendance.is_gone)
        self._mine, self._round = share.worker, share.round
        self._looked_s: float | None = None
        self._expected_s: dict[str, float] = {}
        self._seen: set[str] = set()
        """Places of finished cells that were learned from."""
        self._attendance.begin()
        self._claims.look()

    # --- the gate of the queue

    def is_open(self, planned: PlannedCell) -> bool:
        """See Source: a cell that is free, or ours, and is expected to end in time."""
        return self._claims.is_open(planned.place) and self._is_in_time(planned)

    def take(self, planned: PlannedCell) -> bool:
        """See Source. A cell whose last owner had come to its end, but for the record, is concluded here and now."""
        place = planned.place
        if self._claims.owner(place) == self._mine:
            return True
        return self._claims.take(place, self._paths.cell(place).last_attempt()) and not self._is_over(planned)

    # --- the loop

    def conclude(self, planned: PlannedCell) -> None:
        """See Source."""
        self._seen.add(planned.place)
        self._claims.finish(planned.place)

    def is_given_back(self, outcome: Outcome, *, is_stopped: bool) -> bool:
        """See Source: what the end of this allocation cut short says nothing of the cell."""
        return outcome.reason_code in GIVEN_BACK_CODES or (is_stopped and outcome.status == "failed")

    def attend(self, now_s: float, queue: Queue, running: Sequence[str]) -> None:
        """See Source: give a sign of life, and see what became of the cells of others."""
        self._attendance.beat(now_s, list(running))
        if self._looked_s is not None and now_s < self._looked_s + LOOK_INTERVAL_S:
            return
        self._looked_s = now_s
        self.require_membership()
        self._claims.look()
        for worker in {owner for planned in queue if (owner := self._claims.owner(planned.place))} - {self._mine}:
            self._attendance.look(worker, now_s)
        for planned in queue.forget(self._claims.finished):
            self._learn(planned)

    def require_membership(self) -> None:
        """See Source. Whoever resumes the sweep begins another round, and does not wait for those of the one before."""
        self._attendance.require_membership()
        if latest_round(self._paths) > self._round:
            raise SweepDirError(f"{self._paths.root}: the sweep was resumed meanwhile; its cells are others' now")

    def has_more(self, queue: Queue) -> bool:
        """See Source: not while all that waits is in the hands of workers that are seen to be alive."""
        owners = (self._claims.owner(planned.place) for planned in queue if self._is_in_time(planned))
        return any(owner is None or owner == self._mine or not self._attendance.is_alive(owner) for owner in owners)

    def leave(self, utilization: Utilization, notes: Sequence[str]) -> None:
        """See Source."""
        own = self._attendance.own
        own.num_devices, own.notes = utilization.num_devices, list(notes)
        own.busy_share, own.concurrency = utilization.busy_share(), utilization.concurrency()
        self._attendance.leave()

    # --- what others left

    def _is_in_time(self, planned: PlannedCell) -> bool:
        """Asked for every waiting cell in every turn."""
        if self._ends_s is None:
            return True
        place = planned.place
        if place not in self._expected_s:
            self._expected_s[place] = expected_cell_s(planned, self._device_type)
        return self._clock.now() + self._expected_s[place] <= self._ends_s

    def _learn(self, planned: PlannedCell) -> None:
        place = planned.place
        if place not in self._seen and (record := self._record(planned)) is not None:
            self._seen.add(place)
            self._ledger.records[place] = record
            self._policies.learn(planned, record)
        elif place not in self._seen:
            why = f"{place} was concluded by another worker, and left no record that can be read"
            self._policies.refused(planned, Outcome(status="skipped", reason_code="skipped.interrupted", reason=why))

    def _record(self, planned: PlannedCell) -> Record | None:
        record, problem = read_record(self._paths.cell(planned.place).record, planned)
        if problem:
            self._progress.note(problem)
        return record

    def _is_over(self, planned: PlannedCell) -> bool:
        """Whether a worker that has gone had measured the cell it had, and what it could not do any more is done."""
        place, record = planned.place, self._record(planned)
        newest, before = max(self._paths.cell(place).attempts(), default=0), self._claims.before(place)
        if record is not None and before is not None and max(before["attempts"] + 1, newest) <= record.attempt:
            self._learn(planned)
            self._claims.finish(place)
            return True
        found = resume.recover(planned, self._paths, known=record.attempt if record else 0, note=self._progress.note)
        if found is None:
            return False
        self._progress.report_finished(self._ledger.conclude(planned, judge(found[0]), *found))
        self._learn(planned)
        self._claims.finish(place)
        return True
