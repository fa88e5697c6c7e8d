import json
import signal
from dataclasses import replace
from itertools import product

import pytest

from benchrunner.core.errors import SweepDirError
from benchrunner.core.record import record_to_dict
from benchrunner.launch.fake import FakeLauncher, Script
from benchrunner.machine.devices import Locks
from benchrunner.run import prepare as prepare_module
from benchrunner.run.claims import Claims
from benchrunner.run.options import RunOptions, Share
from benchrunner.run.order import order_by_information
from benchrunner.run.prepare import prepare
from benchrunner.run.resume import Selection
from benchrunner.store.probes import with_probes
from fake_sweeps import ENVIRONMENT, ERROR, OK, cells, interrupted, make_plan, record, run
from samples import CPU, H200, make_cell, make_record, plan_cell


def test_resume_keeps_verdicts_and_runs_the_others_again(paths):
    planned = cells(4)
    oom, bad, hung = Script(errors={0: ERROR | {"kind": "oom"}}), Script(exits={0: 3}), Script(hangs=True)
    first = dict(zip((one.cell.slug for one in planned), (OK, oom, bad, hung), strict=True))
    summary, _ = run(paths, planned, first)
    assert summary.exit_code == 2
    summary, launcher = run(paths, planned, resume=True)
    assert [handle.job.cell for handle in launcher.handles] == [planned[2].cell, planned[3].cell]
    assert [record(paths, one)["attempt"] for one in planned] == [1, 1, 2, 2]
    assert summary.counts == {"ok": 3, "oom": 1} and summary.exit_code == 0
    assert paths.cell(planned[2].cell.slug).attempt(1).exits().exists()


def test_resume_runs_what_never_ran(paths):
    planned = cells(4)
    run(paths, planned, launcher=interrupted(2, signal.SIGINT))
    summary, launcher = run(paths, planned, resume=True)
    assert len(launcher.handles) == 3 and summary.counts == {"ok": 4}


def test_resume_takes_over_ranks_that_finished_without_a_record(paths):
    planned = cells(2)
    run(paths, planned)
    paths.cell(planned[0].cell.slug).record.unlink()
    summary, launcher = run(paths, planned, resume=True)
    assert launcher.handles == [] and summary.counts == {"ok": 2}
    made = record(paths, planned[0])
    assert (made["attempt"], made["metrics"]["step_time_median_s"]) == (1, 0.1)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema_version": 99}', "null"])
def test_a_damaged_record_is_named_and_made_again(paths, capsys, text):
    planned = cells(1)
    run(paths, planned, Script(exits={0: 3}))
    paths.cell(planned[0].cell.slug).record.write_text(text)
    summary, launcher = run(paths, planned, OK, resume=True)
    assert len(launcher.handles) == 1 and summary.counts == {"ok": 1}
    said = f"cells/{planned[0].cell.slug}/record.json is damaged"
    assert said in capsys.readouterr().err and summary.notes[0].startswith(said)


@pytest.mark.parametrize("text", ["", "{", "[]"])
def test_a_damaged_environment_is_named_and_replaced_by_what_a_record_knows(paths, text):
    planned = cells(2)
    run(paths, planned, {planned[0].cell.slug: Script(exits={0: 3})})
    paths.environment.write_text(text)
    other = ENVIRONMENT | {"versions": {"torch": "2.11.0"}}
    with pytest.raises(SweepDirError, match=r"torch 2\.13\.0, here 2\.11\.0"):
        run(paths, planned, resume=True, environment=other)
    paths.environment.write_text(text)
    summary, _ = run(paths, planned, resume=True)
    assert summary.counts == {"ok": 2}
    assert summary.notes[0].startswith("environment.json is damaged and was replaced")
    assert json.loads(paths.environment.read_text())["versions"] == ENVIRONMENT["versions"]


def test_devices_that_have_come_back_are_used(paths):
    planned = [plan_cell(make_cell(strategy="ddp"), "skipped", "skipped.devices", "needs 2 devices")]
    assert run(paths, planned, hardware=CPU)[0].exit_code == 4
    summary, _ = run(paths, planned, resume=True, hardware=H200)
    assert summary.counts == {"ok": 1}


def test_resume_refuses_other_software_unless_it_may_mix(paths):
    planned = cells(2)
    run(paths, planned, {planned[0].cell.slug: Script(exits={0: 3})})
    other = ENVIRONMENT | {"versions": {"torch": "2.11.0"}}
    with pytest.raises(SweepDirError, match=r"torch 2.13.0, here 2.11.0.*--mix"):
        run(paths, planned, resume=True, environment=other)
    run(paths, planned, resume=True, environment=other, mix=True)
    mixed, kept = record(paths, planned[0]), record(paths, planned[1])
    assert "mixed_environment" in mixed["flags"] and mixed["environment"]["versions"]["torch"] == "2.11.0"
    assert "mixed_environment" not in kept["flags"]


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        (Selection(statuses=frozenset({"failed"})), [2]),
        (Selection(statuses=frozenset({"timeout", "failed"})), [2, 3]),
        (Selection(cells=("*seed-3*",)), [3]),
        (Selection(statuses=frozenset({"failed"}), cells=("*seed-3*",)), []),
        (Selection(cells=("*seed-0*",)), []),
    ],
)
def test_resume_runs_only_what_was_chosen(paths, chosen, expected):
    planned = cells(5)
    scripts = {planned[2].cell.slug: Script(exits={0: 3}), planned[3].cell.slug: Script(hangs=True)}
    run(paths, planned[:4], scripts)
    _, launcher = run(paths, planned, resume=True, selection=chosen)
    assert [handle.job.cell.config.seed for handle in launcher.handles] == expected
    assert not paths.cell(planned[4].cell.slug).record.exists()


def test_a_cell_is_chosen_by_its_id(paths):
    planned = cells(3)
    run(paths, planned, selection=Selection(cells=(planned[1].cell.cell_id,)))
    assert [paths.cell(one.cell.slug).record.exists() for one in planned] == [False, True, False]


def test_earlier_attempts_are_listed(paths):
    planned = cells(1)
    run(paths, planned, Script(exits={0: 3}))
    run(paths, planned, Script(exits={0: -9}), resume=True)
    run(paths, planned, resume=True)
    earlier = record(paths, planned[0])["earlier_attempts"]
    assert [(one["attempt"], one["reason_code"]) for one in earlier] == [(1, "failed.exit"), (2, "failed.signal")]


def test_a_verdict_under_a_fault_is_not_kept_without_it(paths):
    planned = cells(1)
    run(paths, planned, fault="grandchild")
    assert run(paths, planned, resume=True, fault="grandchild")[1].handles == []
    _, launcher = run(paths, planned, resume=True)
    assert len(launcher.handles) == 1 and record(paths, planned[0])["fault"] is None
    assert run(paths, planned, resume=True, fault="hang")[1].handles == []


def test_a_cell_too_large_for_this_machine_is_skipped(paths):
    planned = cells(1, devices=8)
    summary, launcher = run(paths, planned, hardware=H200)
    assert record(paths, planned[0])["reason_code"] == "skipped.devices"
    assert launcher.handles == [] and summary.exit_code == 4


# --- what waits when the loop begins


def prepared(paths, planned, plan_hardware=H200, **options):
    launcher = FakeLauncher(lambda job: OK)
    settings = {
        "environment": ENVIRONMENT, "clock": launcher.clock, "fault": None, "hardware": plan_hardware,
        "locks": Locks(None, []),
    }  # fmt: skip
    return prepare(make_plan(planned, plan_hardware), paths, launcher, RunOptions(**(settings | options)))


def write_record(paths, planned, *verdict, **more):
    path = paths.cell(planned.place).record
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record_to_dict(make_record(planned.cell, *verdict, repeat=planned.repeat, **more))))


def test_small_micro_batches_wait_before_large_ones_and_repeats_behind_all(paths):
    planned = [plan_cell(make_cell(leaves={"micro_batch_size": size, "repeats": 2})) for size in (2, 1)]
    waiting = prepared(paths, planned).queue
    found = [(one.cell.sizes.micro_batch_size, one.repeat) for one in waiting]
    assert found == [(1, 1), (2, 1), (1, 2), (2, 2)]


def test_under_a_budget_the_most_informative_cells_wait_first_and_cheap_ones_before_large_ones(paths, monkeypatch):
    options = [("fp32", 0, 1), ("bf16", 0, 1), ("fp32", 1, 1), ("bf16", 1, 1), ("bf16", 1, 4)]
    planned = [
        plan_cell(make_cell(precision=one, strategy="ddp", leaves={"seed": seed, "devices": devices}))
        for one, seed, devices in options
    ]
    costs_s = {one.cell.slug: cost_s for one, cost_s in zip(planned, (5, 4, 3, 1, 2), strict=True)}
    monkeypatch.setattr(
        prepare_module, "expected_cell_s", lambda one, device_type: costs_s[one.cell.slug] * (device_type == "cuda")
    )
    waiting = list(prepared(paths, planned, budget_s=1e9).queue)
    assert waiting == order_by_information(planned, costs_s) and waiting[0] is planned[3]


def test_under_a_budget_no_cell_is_repeated_before_all_were_run(paths, monkeypatch):
    def cost_s(one, device_type):
        return 1.0 if one.cell.axes["precision"] == "fp32" else 100.0

    monkeypatch.setattr(prepare_module, "expected_cell_s", cost_s)
    planned = [
        plan_cell(make_cell(precision=one, compile=two, leaves={"seed": seed, "repeats": 2}))
        for one, two, seed in product(("fp32", "bf16"), ("eager", "inductor"), (0, 1))
    ]
    waiting = prepared(paths, planned, budget_s=1e9).queue
    assert [one.repeat for one in waiting] == [1] * 8 + [2] * 8


@pytest.mark.parametrize("budget_s", [None, 1e9])
def test_what_failed_before_waits_for_all_others(paths, budget_s):
    planned = cells(3)
    write_record(paths, planned[0], "failed", "failed.exit")
    waiting = prepared(paths, planned, budget_s=budget_s, resume=True).queue
    assert list(waiting) == [planned[1], planned[2], planned[0]]


@pytest.mark.parametrize("budget_s", [None, 1e9])
def test_of_a_shared_plan_what_another_has_does_not_start(paths, budget_s):
    planned = cells(2)
    Claims(paths.claims(1), "other", lambda worker: False).take(planned[0].place, 0)
    waiting = prepared(paths, planned, budget_s=budget_s, share=Share(worker="own")).queue
    assert [one for one, _ in waiting.start()] == [planned[1]]


def test_of_a_shared_plan_what_no_such_machine_can_run_is_skipped(paths):
    planned = cells(1, devices=8)
    assert len(prepared(paths, planned, share=Share(worker="own")).queue) == 0
    made = record(paths, planned[0])
    assert (made["reason_code"], made["reason"]) == ("skipped.devices", "needs 8 devices a node, 4 visible")


@pytest.mark.parametrize(("resume", "num_devices"), [(False, 4), (True, 2)])
def test_the_machine_is_looked_at_again_when_a_sweep_is_resumed(paths, monkeypatch, resume, num_devices):
    monkeypatch.setattr(prepare_module, "detect", lambda: replace(H200, num_devices=2))
    assert prepared(paths, cells(1), hardware=None, resume=resume).devices.pool.num_devices == num_devices


def test_events_and_what_is_said_of_devices_go_where_they_should(paths, tmp_path, capsys):
    found = prepared(paths, cells(1), events=tmp_path / "events")
    found.events.end({}, 0)
    assert "end" in (tmp_path / "events").read_text()
    found.devices.pool.is_contended = True
    for now_s in (0.0, 10.0):
        found.devices.report_contention(now_s, is_idle=True)
    assert "waiting for devices" in capsys.readouterr().err


def test_further_processes_that_are_asked_for_wait_unless_they_have_their_records(paths):
    (first,) = cells(1)
    second, third = replace(first, repeat=2), replace(first, repeat=3)
    write_record(paths, first)
    write_record(paths, second)
    assert list(prepared(paths, [first], repeats=3, resume=True).queue) == [third]


def test_what_was_inferred_waits_where_nothing_is_to_be_inferred(paths):
    planned = cells(1)
    write_record(paths, planned[0], "oom", "oom.device", flags=["inferred"], attempt=0)
    waiting = [list(prepared(paths, planned, resume=True, infer=infer).queue) for infer in (True, False)]
    assert waiting == [[], planned]


@pytest.mark.parametrize(
    ("verdict", "flags", "infer", "next_size"),
    [
        (("ok",), [], True, 3),
        (("failed", "failed.exit"), [], True, 2),
        (("oom", "oom.device"), ["inferred"], True, 1),
        (("oom", "oom.device"), ["inferred"], False, 2),
    ],
)
def test_a_search_knows_of_cells_that_are_not_run_again(paths, verdict, flags, infer, next_size):
    search, named = (plan_cell(make_cell(leaves={"micro_batch_size": size})) for size in ("max", 2))
    search = replace(search, predicted={"micro_batch_size": 2})
    write_record(paths, named, *verdict, flags=flags)
    found = prepared(paths, [search, named], resume=True, infer=infer)
    ((_, probe),) = found.searches.due([search], [])
    assert probe.cell.sizes.micro_batch_size == next_size
    assert len(with_probes(make_plan([search, named]), paths).cells) == 2 + (next_size != 2)


def test_verdicts_of_the_plan_are_recorded_where_nothing_is_known_and_nothing_is_to_run(paths):
    ruled, known = (
        plan_cell(make_cell(precision="nf4", leaves={"seed": seed}), "unsupported", "rule.nf4", "no") for seed in (0, 1)
    )
    back = plan_cell(make_cell(strategy="ddp"), "skipped", "skipped.devices", "needs 2 devices")
    write_record(paths, known, "ok")
    assert list(prepared(paths, [ruled, known, back], resume=True).queue) == [back]
    assert [record(paths, one)["status"] for one in (ruled, known)] == ["unsupported", "ok"]
    assert not paths.cell(back.place).record.exists()
