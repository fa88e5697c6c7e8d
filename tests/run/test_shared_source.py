from datetime import datetime
from types import SimpleNamespace

import pytest

from benchrunner.core.errors import SweepDirError
from benchrunner.core.files import write_json
from benchrunner.core.record import record_to_dict
from benchrunner.launch.fake import FakeLauncher, VirtualClock
from benchrunner.outcome.outcome import Outcome
from benchrunner.run import shared_source
from benchrunner.run.attempts import Attempts
from benchrunner.run.attendance import BEAT_INTERVAL_S
from benchrunner.run.claims import Claims
from benchrunner.run.ledger import Ledger
from benchrunner.run.options import RunOptions, Share
from benchrunner.run.policies import Policies
from benchrunner.run.policy import Policy
from benchrunner.run.progress import Progress
from benchrunner.run.schedule import Queue, make_pool
from benchrunner.run.shared_source import LOOK_INTERVAL_S, SharedSource
from benchrunner.run.utilization import Utilization
from benchrunner.store.claims_round import begin_round
from benchrunner.store.workers import declare_gone, read_worker
from fake_sweeps import OK, cells
from samples import CPU, make_record


class Hearing(Policy):
    """Remembers what it is told."""

    def __init__(self):
        self.learned, self.refusals = [], []

    def learn(self, planned, record):
        self.learned.append((planned, record))

    def refused(self, planned, outcome):
        self.refusals.append((planned, outcome))


@pytest.fixture
def shared(paths):
    """What this worker sees of a sweep, and another one beside it."""
    clock, heard, ledger = VirtualClock(), Hearing(), Ledger(paths, {}, {}, [])
    progress = Progress(clock)
    source = SharedSource(paths, Share(worker="own"), ledger, Policies([heard]), progress, "cpu", clock)
    other = Claims(paths.claims(1), "other", lambda worker: False)
    return SimpleNamespace(source=source, heard=heard, ledger=ledger, other=other, progress=progress)


def queue_of(planned, source):
    return Queue(planned, make_pool(CPU, is_local=True), gate=source)


def measure(paths, planned):
    """An attempt that comes to its end; its record is not written."""
    launcher = FakeLauncher(lambda job: OK)
    attempts = Attempts(paths, CPU, RunOptions(fault=None), make_pool(CPU, is_local=True), names_devices=False)
    handle = launcher.start(attempts.next_job(planned, (0,)))
    launcher.clock.sleep(2.0)
    handle.poll()


def write_record(paths, planned):
    record = make_record(planned.cell)
    path = paths.cell(planned.place).record
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, record_to_dict(record))
    return record


def test_what_others_concluded_waits_no_more_and_is_learned_from_once(paths, shared):
    planned = cells(2)
    queue = queue_of(planned, shared.source)
    record = write_record(paths, planned[0])
    shared.other.take(planned[0].place, 0)
    shared.other.finish(planned[0].place)
    shared.source.attend(0.0, queue, [])
    assert list(queue) == planned[1:] and shared.heard.learned == [(planned[0], record)]
    assert shared.ledger.records == {planned[0].place: record} and shared.heard.refusals == []
    shared.source.attend(100.0, queue_of(planned, shared.source), [])
    assert len(shared.heard.learned) == 1 and shared.heard.refusals == []


def test_what_others_concluded_without_a_record_is_known_as_not_started(shared):
    (planned,) = cells(1)
    shared.other.take(planned.place, 0)
    shared.other.finish(planned.place)
    shared.source.attend(0.0, queue_of([planned], shared.source), [])
    why = f"{planned.place} was concluded by another worker, and left no record that can be read"
    refused = Outcome(status="skipped", reason_code="skipped.interrupted", reason=why)
    assert shared.heard.refusals == [(planned, refused)] and shared.heard.learned == []


def test_what_one_who_is_gone_had_measured_is_recorded_and_not_run_again(paths, shared, capsys):
    (planned,) = cells(1)
    measure(paths, planned)
    shared.other.take(planned.place, 0)
    declare_gone(paths, "other")
    shared.source.attend(0.0, queue_of([planned], shared.source), [])
    assert not shared.source.take(planned)
    shared.other.look()
    record = shared.ledger.records[planned.place]
    assert (record.status, record.attempt) == ("ok", 1) and shared.heard.learned == [(planned, record)]
    assert planned.place in shared.other.finished and capsys.readouterr().err.startswith("[1/1] ok ")


def test_what_was_measured_and_recorded_before_is_not_recorded_again(paths, shared):
    """It is to run once more, and the one who had taken it went before it began."""
    (planned,) = cells(1)
    measure(paths, planned)
    write_record(paths, planned)
    shared.other.take(planned.place, 1)
    declare_gone(paths, "other")
    shared.source.attend(0.0, queue_of([planned], shared.source), [])
    assert shared.source.take(planned) and shared.heard.learned == []


def test_a_cell_of_ours_that_is_tried_again_stays_ours(paths, shared):
    (planned,) = cells(1)
    shared.other.take(planned.place, 0)
    declare_gone(paths, "other")
    shared.source.attend(0.0, queue_of([planned], shared.source), [])
    assert shared.source.take(planned)
    write_record(paths, planned)
    assert shared.source.take(planned)


def test_cells_are_open_that_nobody_has_and_that_end_in_time(paths, monkeypatch):
    monkeypatch.setattr(
        shared_source, "expected_cell_s", lambda planned, device_type: 10.0 * (planned.cell.config.seed + 1)
    )
    clock = VirtualClock(now_s=5.0)
    share = Share(worker="own", job="7", time_s=12.0)
    source = SharedSource(paths, share, Ledger(paths, {}, {}, []), Policies([]), Progress(clock), "cpu", clock)
    shown = read_worker(paths, "own")
    assert shown.job == "7" and datetime.fromisoformat(shown.started_at)
    planned = cells(2)
    assert [source.is_open(one) for one in planned] == [True, False], "20 s are too long"
    clock.sleep(2.0)
    assert source.is_open(planned[0])
    Claims(paths.claims(1), "other", lambda worker: False).take(planned[0].place, 0)
    source.attend(7.0, queue_of(planned, source), [])
    assert not source.is_open(planned[0]), "another one has it"
    clock.sleep(0.1)
    assert not source.has_more(queue_of(planned, source))


def test_a_record_that_cannot_be_read_is_noted(paths, shared):
    (planned,) = cells(1)
    write_record(paths, planned)
    paths.cell(planned.place).record.write_text("{")
    shared.other.take(planned.place, 0)
    shared.other.finish(planned.place)
    shared.source.attend(0.0, queue_of([planned], shared.source), [])
    assert f"cells/{planned.place}/record.json is damaged" in shared.progress.notes[0]
    assert [one for one, _ in shared.heard.refusals] == [planned]


@pytest.mark.parametrize(
    ("attempts_before", "attempts_now", "is_ours"),
    [(0, (1,), False), (0, (), False), (1, (1,), True), (0, (1, 2), True)],
    ids=["measured and recorded", "its logs are gone", "not begun again", "begun again"],
)
def test_what_one_who_is_gone_had_recorded_is_not_run_again(paths, shared, attempts_before, attempts_now, is_ours):
    (planned,) = cells(1)
    record = write_record(paths, planned)
    for number in attempts_now:
        paths.cell(planned.place).attempt(number).root.mkdir()
    shared.other.take(planned.place, attempts_before)
    declare_gone(paths, "other")
    queue = queue_of([planned], shared.source)
    shared.source.attend(0.0, queue, [])
    assert shared.source.take(planned) is is_ours
    shared.other.look()
    assert (planned.place in shared.other.finished) is not is_ours
    assert shared.heard.learned == ([] if is_ours else [(planned, record)])


def test_what_was_concluded_here_is_not_learned_again(paths, shared):
    (planned,) = cells(1)
    write_record(paths, planned)
    assert shared.source.take(planned) and shared.source.take(planned), "it stays ours"
    shared.source.conclude(planned)
    shared.source.attend(0.0, queue_of([planned], shared.source), [])
    assert shared.heard.learned == shared.heard.refusals == []


def test_others_are_looked_at_now_and_then(shared):
    planned = cells(2)
    queue = queue_of(planned, shared.source)
    found = []
    for place, now_s in ((None, 0.0), (0, LOOK_INTERVAL_S - 0.1), (None, LOOK_INTERVAL_S)):
        if place is not None:
            shared.other.take(planned[place].place, 0)
            shared.other.finish(planned[place].place)
        shared.source.attend(now_s, queue, [])
        found.append(len(queue))
    assert found == [2, 2, 1]


def test_signs_of_life_say_what_is_at_work_and_the_last_one_how_it_went(paths, shared):
    queue = queue_of(cells(1), shared.source)
    for now_s in (0.0, BEAT_INTERVAL_S / 2, BEAT_INTERVAL_S):
        shared.source.attend(now_s, queue, ["a-cell"])
    shown = read_worker(paths, "own")
    assert (shown.beats, shown.running, shown.state) == (2, ["a-cell"], "working")
    usage = Utilization(4)
    usage.start("a", 4, 0.0)
    usage.waiting(8.0)
    usage.end("a", 8.0)
    shared.source.leave(usage, ["device 1 is lost"])
    shown = read_worker(paths, "own")
    assert (shown.state, shown.num_devices, shown.notes) == ("left", 4, ["device 1 is lost"])
    assert (shown.busy_share, shown.concurrency) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("status", "code", "is_stopped", "is_given_back"),
    [
        ("skipped", "skipped.interrupted", False, True),
        ("failed", "failed.signal", True, True),
        ("failed", "failed.signal", False, False),
        ("oom", "oom.device", True, False),
    ],
)
def test_what_the_end_of_the_allocation_cut_short_is_given_back(shared, status, code, is_stopped, is_given_back):
    outcome = Outcome(status=status, reason_code=code)
    assert shared.source.is_given_back(outcome, is_stopped=is_stopped) is is_given_back


def test_waiting_is_worth_while_for_what_is_free_or_with_one_who_may_be_dead(shared):
    (planned,) = cells(1)
    queue = queue_of([planned], shared.source)
    assert shared.source.has_more(queue) and not shared.source.has_more(queue_of([], shared.source))
    shared.other.take(planned.place, 0)
    shared.source.attend(0.0, queue, [])
    assert shared.source.has_more(queue), "nobody has seen the other one"


def test_who_resumes_the_sweep_takes_its_cells_over(paths, shared):
    shared.source.require_membership()
    begin_round(paths)
    with pytest.raises(SweepDirError, match="the sweep was resumed meanwhile; its cells are others' now"):
        shared.source.require_membership()
