from dataclasses import replace

import pytest

from benchrunner.launch.fake import Script, VirtualClock
from benchrunner.outcome.make_record import Attempt
from benchrunner.outcome.outcome import Outcome
from benchrunner.run.events import Events
from benchrunner.run.ledger import Ledger
from benchrunner.run.options import RunOptions
from benchrunner.run.policies import Policies
from benchrunner.run.policy import Policy
from benchrunner.run.progress import Progress
from benchrunner.run.source import Source
from benchrunner.run.verdicts import Verdicts
from fake_sweeps import ERROR, cells, run

NO = Outcome(status="skipped", reason_code="skipped.devices", reason="no")


class Hearing(Policy, Source):
    """Remembers what it is told."""

    code = "skipped.devices"

    def __init__(self):
        self.refusals, self.concluded = [], []

    def refused(self, planned, outcome):
        self.refusals.append((planned, outcome))

    def conclude(self, planned):
        self.concluded.append(planned)

    def note(self, num_refused, *, at_end):
        return f"{num_refused} cells were not started" if at_end else None


@pytest.fixture
def heard():
    return Hearing()


@pytest.fixture
def progress():
    return Progress(VirtualClock())


@pytest.fixture
def verdicts(paths, heard, progress):
    ledger = Ledger(paths, {}, {}, [])
    return Verdicts(ledger, progress, Policies([heard]), RunOptions(fault=None), Events(None), heard)


def test_a_further_process_that_was_not_launched_leaves_no_record(paths, verdicts, heard):
    again = replace(cells(1)[0], repeat=2)
    verdicts.conclude(again, NO)
    assert heard.concluded == [again] and list(paths.root.iterdir()) == []


@pytest.mark.parametrize(
    ("repeat", "status", "notes"),
    [(1, "failed", []), (2, "ok", []), (2, "failed", ["process 2 of {slug}: failed.exit: no"])],
)
def test_a_further_process_that_is_not_ok_is_noted(verdicts, progress, repeat, status, notes):
    planned = replace(cells(1)[0], repeat=repeat)
    verdicts.conclude(planned, Outcome(status=status, reason_code="failed.exit", reason="no"), None, Attempt(number=1))
    assert progress.notes == [note.format(slug=planned.cell.slug) for note in notes]


def test_policies_hear_why_a_cell_is_not_started(verdicts, heard):
    (planned,) = cells(1)
    verdicts.refuse(planned, NO)
    assert heard.refusals == [(planned, NO)] and heard.concluded == [planned]


def test_how_many_cells_were_not_started_is_noted_at_the_end(verdicts, progress):
    for planned in cells(3):
        verdicts.refuse(planned, NO)
    verdicts.note_refusals()
    assert progress.notes == []
    verdicts.note_refusals(at_end=True)
    assert progress.notes == ["3 cells were not started"]


def test_what_verdicts_rule_out_is_not_started_however_fast_they_come(paths):
    failing = Script(duration_s=0.1, errors={0: ERROR}, exits={0: 1})
    _, launcher = run(paths, cells(5, brake=2), failing)
    assert len(launcher.handles) == 2
