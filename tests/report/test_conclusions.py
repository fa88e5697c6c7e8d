from benchrunner.report.conclusions import best_cells, broke
from benchrunner.report.results import results_table
from samples import make_cell, make_record, make_row


def results(*measured):
    """Cells that differ in their strategy, with (tokens/s, bytes)."""
    names = ("single", "ddp", "fsdp_stage2", "fsdp_stage3")
    rows = []
    for name, (speed, peak) in zip(names, measured, strict=False):
        cell = make_cell(strategy=name)
        metrics = {"tokens_per_second_per_device": speed, "peak_memory_allocated_bytes": peak}
        rows.append(make_row(cell, make_record(cell, metrics=metrics)))
    return results_table(rows)


def test_the_fastest_and_the_smallest_and_how_they_compare():
    assert best_cells(results((100.0, 4 * 2**30), (200.0, 4 * 2**30), (50.0, 2**30)), 3) == [
        "ddp · world 2, 200.0 tokens/s/device in 4.00 GiB a device, 2.00 × single · world 1; the smallest is "
        "fsdp_stage2 in 1.00 GiB (0.25 ×) at 0.25 × its speed."
    ]


def test_one_cell_is_both():
    assert best_cells(results((200.0, 2**30), (100.0, 2**31)), 3)[0].endswith("it is the smallest, too.")


def test_nothing_is_said_of_what_was_not_measured():
    assert best_cells(results((None, 2**30)), 3) == []
    assert best_cells(results((100.0, None), (200.0, 2**30)), 3)[0].endswith("2.00 × single · world 1.")


def test_a_group_is_named_once():
    cells = [
        make_cell(workload=name, strategy=strategy) for name in ("train", "lora") for strategy in ("single", "ddp")
    ]
    speeds = [make_record(cell, metrics={"tokens_per_second_per_device": 100.0}) for cell in cells]
    rows = [make_row(cell, record) for cell, record in zip(cells, speeds, strict=True)]
    assert best_cells(results_table(rows), 1) == [
        "debug train: single · world 1, 100.0 tokens/s/device.",
        "Groups that are in the report, too: 1.",
    ]
    assert len(best_cells(results_table(rows), 2)) == 2


def test_what_broke_most_often_is_said_first_and_what_cannot_be_apart():
    found = [("oom", "oom.device"), ("failed", "failed.exception"), ("failed", "failed.exception"),
             ("timeout", "timeout.step"), ("ok", None)]  # fmt: skip
    cells = [make_cell(leaves={"seed": seed}) for seed in range(6)]
    rows = [make_row(cell, make_record(cell, *why, "r")) for cell, why in zip(cells, found, strict=False)]
    said, first = results_table(rows), "4 of 5 cells: 2 failed (failed.exception)"
    assert broke(said) == f"{first}, 1 timeout (timeout.step), 1 oom (oom.device)."
    assert broke(said, most=2) == f"{first}, 1 timeout (timeout.step) and 1 more reason."
    assert broke(said, most=1) == f"{first} and 2 more reasons."
    ruled = make_row(cells[5], verdict="unsupported", code="rule.x", reason="r")
    assert broke(results_table([rows[4], ruled])) == "Nothing that was run. What cannot be: 1 unsupported (rule.x)."
