import pytest

from benchrunner.core.errors import UsageError
from benchrunner.launch.fake import FakeLauncher, Script
from benchrunner.machine.devices import Locks
from benchrunner.plan.costs import expected_cell_s
from benchrunner.run.budget import LEAST_FACTOR, MOST_FACTOR, Budget, parse_duration
from fake_sweeps import OK, RESULT, cells, record, run
from samples import H200, make_cell, make_record, plan_cell


@pytest.mark.parametrize(
    ("text", "seconds"), [("45m", 2700), ("1h30m", 5400), ("90s", 90), ("0.5h", 1800), ("1h1m1s", 3661), ("1s", 1)]
)
def test_durations(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "soon", "-5m", "1d", "m", "1.2.3h", "nan"])
def test_what_is_no_duration(text):
    with pytest.raises(UsageError, match=r"^--budget: "):
        parse_duration(text)


def test_a_number_alone_is_asked_for_its_unit():
    with pytest.raises(UsageError, match=r"^--timeout: '45' has no unit; write 45m"):
        parse_duration(" 45", "--timeout")


def cell(precision="bf16", compiler="eager", seed=0, **leaves):
    return plan_cell(make_cell(precision=precision, compile=compiler, leaves={"seed": seed} | leaves))


def took(budget, planned, factor, **changes):
    """The cell took so many times the seconds that were expected."""
    wall_s = factor * expected_cell_s(planned, "cpu")
    budget.learn(planned, make_record(planned.cell, **{"wall_s": wall_s} | changes))


def test_experience_corrects_the_prediction():
    budget, planned = Budget(1000.0, 0.0, "cpu"), cell()
    before = budget.expected_s(planned)
    for _ in range(3):
        took(budget, cell(seed=1), 3.0)
    assert budget.expected_s(planned) == pytest.approx(3 * before)


@pytest.mark.parametrize(("factor", "learned"), [(1000.0, MOST_FACTOR), (0.0001, LEAST_FACTOR)])
def test_a_few_odd_cells_correct_it_within_bounds(factor, learned):
    budget, planned = Budget(1000.0, 0.0, "cpu"), cell()
    before = budget.expected_s(planned)
    for seed in range(1, 4):
        took(budget, cell(seed=seed), factor)
    assert budget.expected_s(planned) == pytest.approx(learned * before)
    assert (LEAST_FACTOR, MOST_FACTOR) == (0.1, 10.0)


def test_one_cell_is_too_few_to_learn_from():
    budget, planned = Budget(1000.0, 0.0, "cpu"), cell()
    before = budget.expected_s(planned)
    took(budget, cell(seed=1), 3.0)
    assert budget.expected_s(planned) == before


def test_a_cell_that_fails_its_checks_teaches_as_much_as_one_that_passes_them():
    budget, planned = Budget(1000.0, 0.0, "cpu"), cell()
    before = budget.expected_s(planned)
    took(budget, cell(seed=1), 0.2, status="invalid")
    took(budget, cell(seed=2), 0.4)
    assert budget.expected_s(planned) == pytest.approx(0.3 * before)


def test_a_cell_that_did_not_reach_its_end_corrects_nothing():
    budget, planned = Budget(1000.0, 0.0, "cpu"), cell()
    before = budget.expected_s(planned)
    for seed in range(1, 4):
        took(budget, cell(seed=seed), 3.0, status="failed")
        took(budget, cell(seed=seed), 3.0, wall_s=None)
    assert budget.expected_s(planned) == before


def test_what_was_left_out_is_counted_at_the_end():
    notes = [Budget(100.0, 0.0, "cpu").note(count, at_end=True) for count in (0, 1, 2)]
    assert notes[0] is None and notes[1].startswith("1 cell was ") and notes[2].startswith("2 cells were ")
    assert all("not fit the budget" in note for note in notes[1:])


def test_what_does_not_fit_is_refused_with_the_reason():
    budget, planned = Budget(100.0, 50.0, "cpu"), cell(**{"measure.steps": 200})
    expected_s = budget.expected_s(planned)
    assert budget.refusal(planned, 150.0 - expected_s - 1) is None
    assert "20 s of the budget of 100 s are left" in budget.refusal(planned, 130.0).reason
    assert budget.refusal(planned, 130.0).reason_code == "skipped.budget"
    assert "0 s of the budget" in budget.refusal(planned, 500.0).reason


def test_each_cell_is_expected_to_take_its_own_time():
    short, long = cell(**{"measure.steps": 20}), cell(seed=1, **{"measure.steps": 2000})
    budget = Budget(expected_cell_s(short, "cpu"), 0.0, "cpu")
    assert budget.refusal(short, 0.0) is None
    assert budget.refusal(long, 0.0) is not None


@pytest.mark.parametrize(("total_s", "grace_s"), [(100.0, 60.0), (3600.0, 360.0)])
def test_what_is_at_work_may_run_past_the_end_by_a_share_of_the_budget_but_at_least_a_minute(total_s, grace_s):
    budget = Budget(total_s, 50.0, "cpu")
    assert budget.ending(50.0 + total_s + grace_s) is None
    assert budget.ending(50.0 + total_s + grace_s + 1) == "budget"


# --- through the loop


def test_a_budget_ends_in_a_valid_partial_report(paths, capsys):
    planned = cells(20)
    summary, launcher = run(paths, planned, Script(duration_s=30.0, result=RESULT), budget_s=120.0)
    assert launcher.clock.now() <= 120 and 2 <= len(launcher.handles) <= 4
    assert summary.counts == {"ok": len(launcher.handles), "skipped": 20 - len(launcher.handles)}
    assert summary.exit_code == 0
    made = record(paths, planned[-1])
    assert made["reason_code"] == "skipped.budget" and "of the budget of 120 s" in made["reason"]
    assert "do not fit the budget" in capsys.readouterr().err
    summary, _ = run(paths, planned, resume=True)
    assert summary.counts == {"ok": 20}


def test_a_cell_at_work_long_after_the_budget_is_ended(paths):
    planned = cells(1)
    _, launcher = run(paths, planned, Script(hangs=True, beats_until_s=1e6), budget_s=100.0)
    made = record(paths, planned[0])
    assert (made["status"], made["reason_code"]) == ("skipped", "skipped.budget")
    assert 160 <= launcher.clock.now() < 165


def test_a_budget_shows_every_value_before_it_repeats_one(paths):
    planned = [
        plan_cell(make_cell(precision=precision, compile=compiler, leaves={"seed": seed}))
        for precision in ("bf16", "fp32", "bf16-mixed")
        for compiler in ("eager", "inductor")
        for seed in (0, 1)
    ]
    _, launcher = run(paths, planned, budget_s=1e6)
    first = [handle.job.cell for handle in launcher.handles[:3]]
    assert {cell.axes["precision"] for cell in first} == {"bf16", "fp32", "bf16-mixed"}
    assert {cell.axes["compile"] for cell in first} == {"eager", "inductor"} and {c.config.seed for c in first} == {
        0,
        1,
    }


def test_a_budget_passes_while_the_devices_are_with_another_sweep(paths, tmp_path):
    locks, others = Locks(tmp_path / "locks", "abcd"), Locks(tmp_path / "locks", "abcd")
    (tmp_path / "locks").mkdir()
    assert all(others.take(device) for device in range(4))
    launcher = FakeLauncher(lambda job: OK)
    launcher.clock.at(150.0, others.close)
    planned = cells(1)
    summary, _ = run(paths, planned, launcher=launcher, hardware=H200, locks=locks, budget_s=100.0)
    assert launcher.handles == [] and summary.counts == {"skipped": 1}
    assert record(paths, planned[0])["reason_code"] == "skipped.budget"
