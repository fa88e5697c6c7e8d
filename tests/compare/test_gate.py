"""Two sweeps as a verdict: by what works, by numbers, and by alternated pairs where there are some."""

from dataclasses import replace

import pytest

from benchrunner.compare.gate import ONE_PROCESS, GateOptions, compare, to_run_again
from benchrunner.compare.metric import METRICS
from benchrunner.compare.pairing import pair_cells
from benchrunner.core.errors import SweepDirError
from fake_sweeps import ENVIRONMENT, cells
from samples import H200, make_record
from sides import make_side, timed, timed_side

TIGHT = (1.0, 1.001, 0.999)


def times(factor=1.0, spread=1.0):
    return tuple((1 + (one - 1) * spread) * factor for one in TIGHT)


@pytest.fixture
def planned():
    return cells(4)


def compared(tmp_path, planned, base, new, **more):
    """Compare two sweeps, each given by the times (or records) of its cells."""
    sides = [
        timed_side(tmp_path / name, list(zip(planned, one, strict=True))) for name, one in (("b", base), ("n", new))
    ]
    return compare(pair_cells(*sides), **({"options": GateOptions()} | more))


def verdicts(found):
    return [cell.verdict for cell in found.cells]


def test_the_same_passes(tmp_path, planned):
    found = compared(tmp_path, planned, [times()] * 4, [times(1.001)] * 4)
    assert (found.verdict, verdicts(found)) == ("PASS", ["PASS"] * 4)
    assert (found.num_alarms, found.num_alarm_tests) == (0, 8)
    assert 0.03 < found.detectable < 0.04


def test_one_slower_cell_fails_and_a_faster_one_passes(tmp_path, planned):
    found = compared(tmp_path, planned, [times()] * 4, [times(1.05), times(0.9), times(), times()])
    assert (found.verdict, verdicts(found)) == ("FAIL", ["FAIL", "PASS", "PASS", "PASS"])
    assert [cell.change for cell in found.cells] == ["slower", "faster", "same", "same"]
    assert found.cells[0].log_ratio == pytest.approx(0.0488, abs=1e-3)
    assert found.cells[0].base_value == pytest.approx(1.0, abs=1e-3)
    assert found.cells[0].new_value == pytest.approx(1.05, abs=1e-3)
    assert found.cells[0].alpha == pytest.approx(0.05 / 4) and found.cells[0].effect.log_ratio > 0
    assert [cell.reason for cell in found.cells[:3]] == [
        "slower by at least 3 %, and not by chance",
        "faster by at least 3 %, and not by chance",
        "no difference of 3 % or more",
    ]


@pytest.mark.parametrize("factor", [1.2, 0.8])
def test_differences_of_disturbed_processes_are_not_believed_until_pairs_show_them(tmp_path, planned, factor):
    cell = planned[0].cell
    new = [*timed(cell, times(factor)[:2], flags=["unstable"]), *timed(cell, times(factor))[2:]]
    found = compared(tmp_path, planned[:1], [times()], [new])
    assert (found.verdict, found.cells[0].is_doubted) == ("INCONCLUSIVE", True)
    assert "2 of 3 processes of a side were disturbed" in found.cells[0].reason
    assert len(to_run_again(found, undecided=False)) == 1
    pairs = {cell.cell_id: [0.2, 0.201, 0.199]}
    assert compared(tmp_path / "again", planned[:1], [times()], [new], differences=pairs).verdict == "FAIL"


def test_half_of_the_processes_may_be_disturbed_and_of_memory_all(tmp_path, planned):
    cell, seconds = planned[0].cell, (1.2, 1.201, 1.199, 1.2)
    half = [
        make_record(cell, repeat=r.repeat, metrics=r.metrics, flags=["unstable"] * (r.repeat < 3))
        for r in timed(cell, seconds)
    ]
    assert compared(tmp_path / "half", planned[:1], [times()], [half]).verdict == "FAIL"
    most = [timed(cell, TIGHT, metrics={"peak_memory_allocated_bytes": peak}, flags=["throttled"]) for peak in (10, 20)]
    memory = GateOptions(metric=METRICS["memory"])
    assert compared(tmp_path / "memory", planned[:1], most[:1], most[1:], options=memory).verdict == "FAIL"
    disturbed = compared(
        tmp_path / "base", planned[:1], [timed(cell, times(), flags=["foreign_process"])], [times(1.2)]
    )
    assert disturbed.cells[0].reason == (
        "looks slower: but 3 of 3 processes of a side were disturbed (foreign_process or throttled or unstable)"
        " (--confirm alternates)"
    )


def test_of_sides_with_unlike_numbers_of_processes_the_larger_share_of_disturbed_ones_counts(tmp_path, planned):
    cell = planned[0].cell
    base, new = (
        [replace(record, flags=["unstable"] * (record.repeat < 3)) for record in timed(cell, seconds)]
        for seconds in (times() * 2, times(1.2))
    )
    found = compared(tmp_path, planned[:1], [base], [new])
    assert found.cells[0].reason.startswith("looks slower: but 2 of 3 processes of a side were disturbed")


def test_noise_is_inconclusive(tmp_path, planned):
    found = compared(tmp_path, planned, [times(spread=50)] * 4, [times(1.05, spread=50)] * 4)
    assert (found.verdict, set(verdicts(found))) == ("INCONCLUSIVE", {"INCONCLUSIVE"})


def test_one_process_a_side_is_inconclusive_and_says_what_to_do(tmp_path, planned):
    found = compared(tmp_path, planned, [(1.0,)] * 4, [(2.0,)] * 4)
    assert (found.verdict, found.cells[0].reason, found.detectable) == ("INCONCLUSIVE", ONE_PROCESS, None)
    assert len(to_run_again(found, undecided=False)) == 4


def test_of_one_process_a_side_what_may_be_worse_is_run_again(tmp_path, planned):
    found = compared(tmp_path, planned, [(1.0,)] * 4, [(1.031,), (1.029,), (0.5,), (1.0,)])
    assert [pair.slug for pair in to_run_again(found, undecided=False)] == [planned[0].cell.slug]
    assert len(to_run_again(found, undecided=True)) == 4


def test_what_differs_within_one_side_is_an_alarm(tmp_path, planned):
    found = compared(tmp_path, planned[:2], [(1.0, 1.001, 1.5, 1.501), times()], [times(9.0), times()])
    assert (found.num_alarms, found.num_alarm_tests, found.cells[0].is_doubted) == (1, 4, True)
    assert found.cells[0].reason.startswith("looks ") and "the halves of one side of this cell" in found.cells[0].reason


def test_the_correction_is_for_the_cells_that_are_tested(tmp_path, planned):
    cell = planned[0].cell
    broken = [*timed(cell, TIGHT[:2]), make_record(cell, "failed", "failed.exception", "boom", repeat=3)]
    found = compared(tmp_path / "sweeps", planned[:2], [times()] * 2, [broken, times()])
    assert [one.alpha for one in found.cells if one.effect] == [0.05]
    pairs = {planned[1].cell.cell_id: [0.0, 0.001, -0.001]}
    for number, (looks, alpha) in enumerate([({}, 0.05), ({"num_looks": 5}, 0.01)]):
        place = tmp_path / str(number)
        found = compared(place, planned[:2], [times()] * 2, [times()] * 2, differences=pairs, **looks)
        assert (found.cells[1].num_pairs, found.cells[1].alpha) == (3, pytest.approx(alpha))


def test_what_has_no_number_is_not_run_again(tmp_path, planned):
    first = make_record(planned[0].cell, "failed", "failed.exception", "boom")
    empty = make_record(planned[1].cell, metrics={})
    found = compared(tmp_path, planned[:2], [times(), [empty]], [[first], [empty]])
    assert verdicts(found) == ["FAIL", None] and to_run_again(found, undecided=True) == []
    assert found.cells[1].reason == "has no time to compare"


def test_a_slower_machine_everywhere_is_noted(tmp_path, planned):
    found = compared(tmp_path, planned, [times()] * 4, [times(1.1)] * 4)
    assert found.verdict == "FAIL"
    assert found.notes == [
        "4 of 4 cells are worse and none is better: one cause for all, or a drift"
        " (--confirm alternates, and so tells them apart)"
    ]
    assert compared(tmp_path / "half", planned, [times()] * 4, [times(1.1)] * 2 + [times()] * 2).notes == []
    assert compared(tmp_path / "few", planned[:3], [times()] * 3, [times(1.1)] * 3).notes == []
    one_alike = compared(tmp_path / "alike", planned, [times()] * 4, [times(1.1)] * 3 + [times()])
    assert one_alike.notes[0].startswith("3 of 4 cells are worse and none is better: ")
    one_better = compared(tmp_path / "better", planned, [times()] * 4, [times(1.1)] * 3 + [times(0.99)])
    assert one_better.notes == []
    pairs = {one.cell.cell_id: [0.1, 0.101, 0.099] for one in planned}
    assert compared(tmp_path / "pairs", planned, [times()] * 4, [times(1.1)] * 4, differences=pairs).notes == []


OOM = ("oom", "oom.device", "rank 0 ran out of memory")
LOST = ("failed", "failed.infrastructure", "the device was lost")
LATER = ("skipped", "skipped.budget", "no time")


@pytest.mark.parametrize(
    ("base", "new", "verdict", "reason"),
    [
        (("ok",), OOM, "FAIL", "works no more: ok → oom (oom.device): rank 0 ran out of memory"),
        (("ok",), ("invalid", "validity.work", "lied"), "FAIL", "works no more"),
        (OOM, ("ok",), "PASS", "works now: oom (oom.device) → ok"),
        (OOM, OOM, None, "oom (oom.device)"),
        (OOM, ("oom", "oom.host", "the host"), None, "fails differently: oom (oom.device) → oom (oom.host): the host"),
        (("ok",), LATER, "INCONCLUSIVE", "ok → skipped (skipped.budget): no time"),
        (LATER, ("ok",), "INCONCLUSIVE", "skipped (skipped.budget) → ok"),
        (LOST, OOM, "INCONCLUSIVE", "failed (failed.infrastructure) → oom (oom.device): rank 0"),
        (("ok",), None, "INCONCLUSIVE", "no record"),
        (("ok",), LOST, "INCONCLUSIVE", "the device was lost"),
    ],
)
def test_what_works_decides_first(tmp_path, planned, base, new, verdict, reason):
    sides = [make_side(tmp_path / name, [(planned[0], one)]) for name, one in (("b", base), ("n", new))]
    found = compare(pair_cells(*sides), GateOptions())
    assert found.cells[0].verdict == verdict
    assert reason in found.cells[0].reason
    assert found.verdict == (verdict or "INCONCLUSIVE")


def test_one_of_three_processes_that_fails_is_a_regression(tmp_path, planned):
    cell = planned[0].cell
    broken = [*timed(cell, TIGHT[:2]), make_record(cell, "failed", "failed.exception", "boom", repeat=3)]
    found = compared(tmp_path, planned[:1], [times()], [broken])
    assert found.verdict == "FAIL"
    assert "ok → failed (failed.exception) in 1 of 3 processes: boom" in found.cells[0].reason


def test_a_vanished_cell_is_no_pass_and_a_new_one_is_shown(tmp_path, planned):
    first, second, third, fourth = planned
    base = timed_side(tmp_path / "b", [(one, times()) for one in (first, second, third)])
    new = timed_side(tmp_path / "n", [(one, times()) for one in (first, second, fourth)])
    found = compare(pair_cells(base, new), GateOptions())
    assert (found.verdict, verdicts(found)) == ("INCONCLUSIVE", ["PASS", "PASS"])
    assert [one.slug for one in found.pairing.vanished] == [third.cell.slug]
    assert [one.slug for one in found.pairing.appeared] == [fourth.cell.slug]


def test_pairs_decide_over_what_was_measured_before(tmp_path, planned):
    base, new = [times()] * 4, [times(1.05), times(1.05), times(1.05), times()]
    ids = [one.cell.cell_id for one in planned]
    pairs = {ids[0]: [0.05, 0.051, 0.049], ids[1]: [0.0, 0.001, -0.001]}
    found = compared(tmp_path, planned, base, new, differences=pairs, num_looks=3)
    assert verdicts(found) == ["FAIL", "PASS", "FAIL", "PASS"]
    assert [cell.num_pairs for cell in found.cells] == [3, 3, 0, 0]


def test_only_what_may_fail_is_run_again_unless_asked(tmp_path, planned):
    base = [times()] * 4
    found = compared(tmp_path, planned, base, [times(1.05), times(0.9), times(1.0295), times()])
    assert [cell.verdict for cell in found.cells] == ["FAIL", "PASS", "INCONCLUSIVE", "PASS"]
    assert [pair.slug for pair in to_run_again(found, undecided=False)] == [planned[0].cell.slug]
    assert [pair.slug for pair in to_run_again(found, undecided=True)] == [one.cell.slug for one in planned[:3]]


@pytest.mark.parametrize(
    ("base", "new", "reason"),
    [
        (OOM, ("ok",), "works now: oom (oom.device) → ok"),
        (OOM, OOM, "oom (oom.device)"),
        (OOM, ("oom", "oom.host", "the host"), "fails differently: oom (oom.device) → oom (oom.host): the host"),
        (LATER, ("ok",), "skipped (skipped.budget) → ok"),
    ],
)
def test_what_is_said_of_a_status(tmp_path, planned, base, new, reason):
    sides = [make_side(tmp_path / name, [(planned[0], one)]) for name, one in (("b", base), ("n", new))]
    assert compare(pair_cells(*sides), GateOptions()).cells[0].reason == reason


def test_a_cell_of_another_size_is_not_decided_and_one_that_passes_is_not_explained(tmp_path, planned):
    base, new = (
        timed_side(
            tmp_path / name,
            [(one, timed(one.cell, TIGHT, metrics={"sm_clock_mhz_mean": clock})) for one in planned[:2]],
        )
        for name, clock in (("b", 1900.0), ("n", 1000.0))
    )
    odd = new.cells[planned[0].cell.cell_id]
    cell = replace(odd.planned.cell, sizes=replace(odd.planned.cell.sizes, seq_len=7))
    new.cells[cell.cell_id] = replace(odd, planned=replace(odd.planned, cell=cell))
    other, same = compare(pair_cells(base, new), GateOptions()).cells
    assert (other.verdict, other.reason) == ("INCONCLUSIVE", "another size: seq_len 128 → 7")
    assert (other.pair.new.planned.cell, other.effect) == (cell, None)
    assert (same.verdict, same.attribution) == ("PASS", ())


def test_a_cell_that_works_no_more_says_what_else_changed(tmp_path, planned):
    failed = make_record(planned[0].cell, "oom", "oom.device", "full", flags=["odd"])
    found = compared(tmp_path, planned[:1], [times()], [[failed]])
    assert (found.verdict, found.cells[0].attribution) == ("FAIL", ["flag odd: new"])


def test_memory_is_compared_as_well(tmp_path, planned):
    records = [
        [timed(one.cell, TIGHT, metrics={"peak_memory_allocated_bytes": peak}) for one in planned[:2]]
        for peak in (1000, 1100)
    ]
    found = compared(tmp_path, planned[:2], *records, options=GateOptions(metric=METRICS["memory"]))
    assert (found.verdict, found.cells[0].change) == ("FAIL", "slower")
    assert "larger by at least 3 %" in found.cells[0].reason


def test_a_changed_cell_says_what_else_changed_in_it(tmp_path, planned):
    cell = planned[0].cell
    base = timed(cell, times(), metrics={"sm_clock_mhz_mean": 1980.0, "num_graph_breaks": 0, "attention": "flash"})
    new = timed(
        cell, times(1.2), metrics={"sm_clock_mhz_mean": 1600.0, "num_graph_breaks": 2}, flags=["throttled"],
        ranks=[{"rank": 0, "state": "done", "phase": "teardown", "phases_s": {}, "choices": {"attention": "math"}}],
    )  # fmt: skip
    found = compared(tmp_path, planned[:1], [base], [new])
    assert found.cells[0].attribution == [
        "clock: SM clock 1,980 → 1,600 MHz (-19.2 %)",
        "compile: graph breaks 0 → 2",
        "kernels: attention null → math",
        "flag throttled: new",
    ]


# --- refusals and suspects


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"hardware": H200}, r"cannot be compared: measured on Some CPU \(cpu\) and NVIDIA H200"),
        ({"records": {"fault": "nan@0"}}, "was made under the planted fault nan@0"),
        ({"others": True}, "they have no cell in common"),
    ],
)
def test_what_cannot_be_compared_is_refused_with_the_reason(tmp_path, planned, more, message):
    base = timed_side(tmp_path / "b", [(planned[0], times())])
    chosen = planned[1] if more.get("others") else planned[0]
    hardware = {"hardware": more["hardware"]} if "hardware" in more else {}
    new = timed_side(tmp_path / "n", [(chosen, timed(chosen.cell, TIGHT, **more.get("records", {})))], **hardware)
    with pytest.raises(SweepDirError, match=message):
        pair_cells(base, new)


def test_a_sweep_is_not_compared_with_itself(tmp_path, planned):
    side = timed_side(tmp_path, [(planned[0], times())])
    with pytest.raises(SweepDirError, match="with itself"):
        pair_cells(side, side)


def test_other_sizes_are_refused(tmp_path):
    from samples import H200, make_cell, plan_cell

    sides = [
        timed_side(
            tmp_path / str(num),
            [(plan_cell(make_cell(num, strategy="ddp")), times())],
            hardware=replace(H200, num_devices=num),
        )
        for num in (2, 4)
    ]
    with pytest.raises(SweepDirError, match=r"no cell has the same sizes .* world_size 2 → 4"):
        pair_cells(*sides)


def test_what_came_and_went_is_a_suspect_and_so_is_the_other_order(tmp_path, planned):
    before = {
        "python": "3.11",
        "variables": {"A": "1"},
        "topology": [["self"]],
        "collected_at": "x",
        "gpus": [{"uuid": "a"}],
    }
    after = {"variables": {"B": "2"}, "driver": "580", "git": {"is_dirty": True}, "gpus": []}
    base, new = (
        timed_side(tmp_path / name, [(planned[0], timed(planned[0].cell, TIGHT, started_at=start))], environment=found)
        for name, found, start in (("b", before, "2026-11-23"), ("n", after, "2026-11-22"))
    )
    assert compare(pair_cells(base, new), GateOptions()).suspects == [
        "python 3.11 → none",
        "GPU 0 uuid a → none",
        "variables.A 1 → none",
        "git.is_dirty none → True",
        "driver none → 580",
        "variables.B none → 2",
        "base was measured after new, from 2026-11-23: what drifts with time looks like a difference",
    ]


def test_sweeps_that_ran_beside_each_other_or_at_no_known_time_are_no_suspects(tmp_path, planned):
    def side(name, *starts):
        records = [record for start in starts for record in timed(planned[0].cell, TIGHT[:1], started_at=start)]
        made = [replace(record, repeat=number) for number, record in enumerate(records, start=1)]
        return timed_side(tmp_path / name, [(planned[0], made)])

    def said(before, after):
        return compare(pair_cells(side("b", *before), side("n", *after)), GateOptions()).suspects

    assert said(["1", "3"], ["2", "4"]) == said([None], ["2"]) == said(["2"], [None]) == []
    assert said(["1", "2"], ["2"]) == said(["2"], ["1", "2"]) == [], "they touch"
    assert said(["2", "1"], ["4", "3"])[0].startswith("new was measured after base, from 3:")
    assert said(["4", "3"], ["1", "2"])[0].startswith("base was measured after new, from 3:")


def test_versions_devices_and_the_order_of_runs_are_suspects(tmp_path, planned):
    gpu = {"name": "NVIDIA H200", "uuid": "GPU-1", "power_limit_w": 700.0, "sm_clock_mhz": 345}
    before = ENVIRONMENT | {"gpus": [gpu], "git": {"commit": "abc", "is_dirty": True}}
    after = before | {"versions": {"torch": "2.14.0"}, "gpus": [gpu | {"uuid": "GPU-2", "sm_clock_mhz": 1980}]}
    later = timed(planned[0].cell, TIGHT, started_at="2026-11-22T03:00:00+00:00")
    base = timed_side(tmp_path / "b", [(planned[0], times())], environment=before)
    new = timed_side(tmp_path / "n", [(planned[0], later)], environment=after)
    assert compare(pair_cells(base, new), GateOptions()).suspects == [
        "versions.torch 2.13.0 → 2.14.0",
        "GPU 0 uuid GPU-1 → GPU-2",
        "both were measured with uncommitted changes, which nobody can tell apart",
        "new was measured after base, from 2026-11-22T03:00:00+00:00: what drifts with time looks like a difference",
    ]
