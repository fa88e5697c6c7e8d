import pytest

from benchrunner.core.paths import SweepPaths
from benchrunner.launch.fake import Script
from benchrunner.outcome.outcome import Outcome
from benchrunner.run.retries import Retries
from fake_sweeps import ERROR, OK, cells, record, run

TAKEN = Script(errors={0: ERROR | {"message": "The server socket: EADDRINUSE"}}, exits={0: 1})


def first_attempt_ends(script):
    return lambda job: script if job.attempt == 1 else OK


def test_a_failure_of_infrastructure_is_tried_again(paths, capsys):
    planned = cells(2)
    summary, launcher = run(paths, planned, first_attempt_ends(TAKEN))
    assert summary.counts == {"ok": 2} and summary.exit_code == 0
    assert [handle.job.attempt for handle in launcher.handles] == [1, 2, 1, 2]
    made = record(paths, planned[0])
    assert made["attempt"] == 2 and made["earlier_attempts"][0]["reason_code"] == "failed.infrastructure"
    assert capsys.readouterr().err.count("trying again (1 of 1)") == 2


@pytest.mark.parametrize(("retries", "attempts"), [(0, 1), (1, 2), (3, 4)])
def test_retries_are_bounded(paths, retries, attempts):
    planned = cells(1, retries=retries)
    summary, launcher = run(paths, planned, TAKEN)
    assert len(launcher.handles) == attempts and summary.counts == {"failed": 1}
    made = record(paths, planned[0])
    assert made["reason_code"] == "failed.infrastructure" and len(made["earlier_attempts"]) == attempts - 1


def test_other_failures_are_not_tried_again(paths):
    for number, script in enumerate([Script(errors={0: ERROR}), Script(exits={0: -9}), Script(hangs=True)]):
        _, launcher = run(SweepPaths(paths.root / str(number)), cells(1), script)
        assert len(launcher.handles) == 1


def test_each_cell_has_its_own_retries():
    one, other = cells(2)
    retries, failed = Retries(2), Outcome(status="failed", reason_code="failed.infrastructure", reason="no port")
    assert retries.rerun(one, failed) == "no port; trying again (1 of 2)"
    assert retries.rerun(one, failed) == "no port; trying again (2 of 2)"
    assert retries.rerun(one, failed) is None
    assert retries.rerun(other, failed) == "no port; trying again (1 of 2)"
    assert Retries(0).rerun(one, failed) is None


def test_a_cell_is_not_tried_again_that_would_not_be_started_any_more(paths):
    planned = cells(1)
    taking = Script(duration_s=90.0, errors=TAKEN.errors, exits=TAKEN.exits)
    summary, launcher = run(paths, planned, taking, budget_s=100.0)
    assert len(launcher.handles) == 1 and summary.counts == {"failed": 1}
    assert record(paths, planned[0])["reason_code"] == "failed.infrastructure"
