"""`bench show --isolate`: which cells are asked about, and what is said of them."""

import pytest

from benchrunner.cli import isolation
from benchrunner.cli.isolation import Asker, isolation_lines
from benchrunner.core.errors import UsageError
from benchrunner.core.files import write_json
from benchrunner.core.paths import SweepPaths
from benchrunner.core.record import record_to_dict
from benchrunner.store.runs import ExitSummary
from samples import make_cell, make_record, make_row

SETTINGS = {"measure.steps": 2}


def failed(**axes):
    cell = make_cell(leaves={"seed": 3} | SETTINGS, **axes)
    return make_row(cell, make_record(cell, "failed", "failed.exception", "boom"))


def worked(**axes):
    cell = make_cell(leaves={"seed": 3} | SETTINGS, **axes)
    return make_row(cell, make_record(cell))


@pytest.fixture
def run(monkeypatch):
    """Cells run: they fail whenever there is DDP."""
    asked = []

    def end(self, made):
        cell = made.cells[0].cell
        asked.append(cell)
        return "failed.exception" if cell.axes["strategy"] == "ddp" else "ok"

    monkeypatch.setattr(Asker, "_run", end)
    return asked


def test_what_it_takes_to_fail_is_found_by_few_cells(tmp_path, run):
    row = failed(strategy="ddp", activation_checkpointing="full")
    rows = [row, worked(activation_checkpointing="full")]
    takes, *tried, command = isolation_lines(row, rows, SweepPaths(tmp_path))
    assert takes == "failed.exception takes strategy=ddp"
    assert tried == ["with strategy=single: ok", "with activation_checkpointing=none: still failed.exception",
                     "with the default of seed: still failed.exception"]  # fmt: skip
    assert (
        command.startswith("bench ")
        and "strategy=ddp" in command
        and "seed" not in command
        and command.endswith("measure.steps=2")
    )
    assert [cell.axes["strategy"] for cell in run] == ["ddp"] * 3, "the sweep has run the other one itself"
    assert run[0] == row.planned.cell, "first, whether it still fails"
    assert all(cell.config.measure.steps == 2 for cell in run)


def test_values_of_the_nearest_cell_that_works_are_put_in_too(tmp_path, run):
    row = failed(strategy="ddp")
    rows = [row, worked(strategy="fsdp_stage2", precision="fp32"), worked(strategy="fsdp_stage3")]
    _, *tried, _ = isolation_lines(row, rows, SweepPaths(tmp_path))
    assert [line for line in tried if "strategy" in line] == [
        "with strategy=single: ok",
        "with strategy=fsdp_stage3: ok",
    ]


def test_what_the_sweep_has_run_is_remembered_and_not_run(tmp_path, run):
    row = failed(activation_checkpointing="full")
    ask = Asker(SweepPaths(tmp_path), [row, worked()], "a-name-2fd597", ["measure.steps=2"])
    assert ask(["seed=3", "activation_checkpointing=full"]) == "failed.exception"
    assert ask(["seed=3"]) == "ok" and run == []
    assert ask(["hardware=h200-sxm-141gb"]) == "skipped.devices" and run == []
    assert ask(["seed=nothing"]).startswith("refused (seed: nothing is not an integer")


def test_a_failure_that_does_not_come_again_is_not_blamed_on_any_value(tmp_path, run):
    row = failed(strategy="single")
    assert isolation_lines(row, [row, worked(strategy="ddp")], SweepPaths(tmp_path)) == [
        "run again here it is ok, not failed.exception: there is no failure to isolate"
    ]
    assert len(run) == 1


def test_a_rule_answers_without_a_run(tmp_path, run):
    cell = make_cell(precision="nf4", strategy="ddp", leaves=SETTINGS)
    row = make_row(cell, make_record(cell, "unsupported", "rule.nf4_train", "no"))
    assert isolation_lines(row, [row], SweepPaths(tmp_path))[0] == "rule.nf4_train takes precision=nf4"
    assert [one.axes["precision"] for one in run] == ["bf16"]


@pytest.mark.parametrize(
    ("ended", "code"),
    [
        (("ok",), "ok"), (("oom", "oom.device", "too much"), "oom.device"), (None, "no record"),
        (("skipped", "skipped.interrupted", "by hand"), None),
    ],
)  # fmt: skip
def test_a_cell_is_run_in_a_sweep_of_its_own_below_that_of_the_question(tmp_path, monkeypatch, capsys, ended, code):
    ran = []

    def run_plan(made, paths, *, launcher, options):
        ran.append((made, paths, launcher, options))
        place = paths.cell(made.cells[0].place).record
        if ended:
            place.parent.mkdir(parents=True, exist_ok=True)
            write_json(place, record_to_dict(make_record(made.cells[0].cell, *ended)))
        return ExitSummary(counts={}, num_attempted=1, interrupted_by=2 if code is None else None)

    monkeypatch.setattr("benchrunner.run.sweep.run_plan", run_plan)
    ask = Asker(SweepPaths(tmp_path), [], "a-cell-of-name-2fd597", ["measure.steps=2", "launcher.preload=false"])
    if code is None:
        with pytest.raises(UsageError, match=f"interrupted; the cells that were run are in {tmp_path}/isolate"):
            ask(["seed=3"])
    else:
        assert ask(["seed=3"]) == code
    [(made, paths, launcher, options)] = ran
    assert (made.sweep_name, paths.root.parent) == ("2fd597", tmp_path / "isolate" / "2fd597") and paths.plan.exists()
    assert (made.cells[0].cell.config.seed, made.cells[0].cell.config.measure.steps) == (3, 2)
    assert not launcher._preloads and options.infer and capsys.readouterr().err == "trying seed=3\n"


def test_a_cell_that_did_not_fail_has_nothing_to_isolate(tmp_path):
    row = worked()
    with pytest.raises(UsageError, match="is ok: there is no failure"):
        isolation_lines(row, [row], SweepPaths(tmp_path))
    assert isolation.FOLDER == "isolate"
