"""What stands on the page, as data: its table, sentences, heat map and the points of its pictures."""

import pytest

from benchrunner.report import charts, page
from benchrunner.report.content import make_tables
from benchrunner.report.page import Heat
from samples import make_cell, make_record, make_row

SPEED = "tokens_per_second_per_device"


def row(speed=None, status="ok", metrics=None, reason="because", flags=(), roots="cli/one", **given):
    cell = make_cell(**given)
    measured = {**({} if speed is None else {SPEED: speed}), **(metrics or {})}
    code = None if status == "ok" else f"{status}.x"
    record = make_record(cell, status, code, None if code is None else reason, metrics=measured, flags=list(flags))
    return make_row(cell, record, sweep=roots)


def tables(*rows, **how):
    return make_tables("t", rows, [], [], **how)


def test_a_row_has_status_labels_numbers_flags_and_why():
    metrics = {"step_time_median_s": 0.5, "peak_memory_allocated_bytes": 2**30, "num_alloc_retries": 0}
    failed = row(status="failed", reason="a\nb", strategy="ddp")
    found = page.cell_table(tables(row(100.0, metrics=metrics, flags=["x"]), failed, row(50.0, strategy="fsdp_stage3")))
    assert found.headings == [
        "status", "strategy", "world", "step ms", "tokens/s/device", "× baseline", "peak GiB", "flags", "why",
    ]  # fmt: skip
    assert found.rows == [
        ["✓ ok", "single", "1", "500.0", "100.0", "1.00", "1.00", "x", ""],
        ["! failed", "ddp", "2", "–", "–", "–", "–", "", "failed.x: a b"],
        ["✓ ok", "fsdp_stage3", "2", "–", "50.00", "0.50", "–", "", ""],
    ]
    assert found.files[0] == f"cells/{make_cell().slug}/record.json"


def test_allocator_retries_are_a_column_where_there_are_some():
    retried = row(2.0, metrics={"num_alloc_retries": 3}, strategy="ddp")
    none = row(1.0, metrics={"num_alloc_retries": 0})
    assert "alloc retries" in page.cell_table(tables(none, retried)).headings
    assert "alloc retries" not in page.cell_table(tables(none, row(2.0, strategy="ddp"))).headings
    assert "× baseline" not in page.cell_table(tables(row(status="oom"))).headings


def test_files_are_linked_from_where_the_report_is():
    waiting = make_row(make_cell(strategy="ddp"))
    found = page.cell_table(tables(row(1.0, roots="cli/two"), waiting, roots={"cli/two": "../two/"}))
    assert found.files == [f"../two/cells/{make_cell().slug}/record.json", ""]


@pytest.mark.parametrize(("most", "why", "files"), [(2, "oom.x: because", 2), (1, "oom.x", 0)])
def test_a_large_sweep_names_codes_alone(monkeypatch, most, why, files):
    monkeypatch.setattr(page, "MOST_CELLS_IN_FULL", most)
    found = page.cell_table(tables(row(1.0), row(status="oom", strategy="ddp")))
    assert (found.rows[1][-1], len(found.files)) == (why, files)


def test_the_ratio_is_to_the_first_of_its_group_that_has_a_speed():
    rows = [row(status="oom"), row(10.0, strategy="ddp"), row(25.0, strategy="fsdp_stage3"), row(3.0, workload="lora")]
    assert page.ratios_to_baseline(tables(*rows).results) == ["–", "1.00", "2.50", "1.00"]
    assert page.ratios_to_baseline(tables(rows[0]).results) == []


# --- sentences


def test_the_sentences_of_the_first_screen():
    rows = [row(10.0), row(20.0, compile="inductor"), row(status="oom", compile="thunder", strategy="ddp")]
    found = dict(page.sentences(tables(*rows)))
    assert list(found) == ["Fastest that fits", "What broke", "What was changed"]
    assert found["What was changed"] == ["strategy (2), compile (3), world (2)."]
    assert found["Fastest that fits"][0].startswith("single · inductor")
    assert dict(page.sentences(tables(rows[2])))["Fastest that fits"] == ["No cell has a speed."]
    assert dict(page.sentences(tables(rows[0])))["What was changed"] == ["Nothing: one combination."]


def test_of_many_groups_a_few_are_named():
    rows = [row(1.0, workload=name) for name in ("train", "lora", "adapter", "adapter_v2")]
    assert len(dict(page.sentences(tables(*rows)))["Fastest that fits"]) == page.MOST_GROUPS + 1


def test_statuses_are_counted():
    rows = [row(1.0), row(status="oom", strategy="ddp"), row(status="oom", strategy="fsdp_stage3")]
    assert page.counts(tables(*rows)) == {"oom": 2, "ok": 1}


# --- heat map


def heat_of(*rows):
    return page.heat(page.cell_table(tables(*rows)))


def test_the_heat_map_has_the_best_of_each_combination():
    """By seq len (three values) and compiler (two); tenths of the best speed."""
    lengths = (32, 64, 96)
    rows = [
        row(speed, leaves={"seq_len": length}) for speed, length in zip((1000.0, 500.0, 40.0), lengths, strict=True)
    ]
    rows += [row(status="oom", compile="inductor", leaves={"seq_len": 32}),
             row(2000.0, compile="inductor", leaves={"seq_len": 64})]  # fmt: skip
    assert heat_of(*rows) == Heat(
        row_label="seq len",
        column_label="compile",
        columns=["eager", "inductor"],
        rows=[
            ("32", [("1,000", "ok", 5), ("OOM", "oom", 0)]),
            ("64", [("500.0", "ok", 2), ("2,000", "ok", 10)]),
            ("96", [("40.00", "ok", 0), ("", "absent", 0)]),
        ],
        measure="tokens/s/device",
    )


def test_a_square_of_several_cells_is_their_best_or_what_most_of_them_are():
    """By seq len (four values) and compiler (three): what else varies meets in a square."""

    def sized(length, size, speed=None, **given):
        return row(speed, leaves={"seq_len": length, "micro_batch_size": size}, **given)

    rows = [
        sized(32, 1, 30.0), sized(32, 2, 10.0), sized(64, 1, 20.0),
        sized(96, 1, status="oom"), sized(96, 2, status="failed"), sized(96, 1, status="failed", strategy="ddp"),
        sized(128, 1, 1.0, compile="inductor"), sized(128, 1, 2.0, compile="thunder"),
    ]  # fmt: skip
    found = heat_of(*rows)
    assert (found.row_label, found.columns) == ("seq len", ["eager", "inductor", "thunder"])
    assert [squares[0] for _, squares in found.rows] == [
        ("30.00", "ok", 10), ("20.00", "ok", 7), ("!", "failed", 0), ("", "absent", 0),
    ]  # fmt: skip


def test_where_one_label_varies_it_stands_alone():
    found = heat_of(row(10.0), row(5.0, compile="inductor"))
    assert (found.row_label, found.column_label, found.columns) == ("compile", "", ["all"])
    assert found.rows == [("eager", [("10.00", "ok", 10)]), ("inductor", [("5.000", "ok", 5)])]


def test_without_a_number_or_two_values_there_is_no_heat_map(monkeypatch):
    assert heat_of(row(10.0)) is None
    assert heat_of(row(status="oom"), row(status="oom", compile="inductor")) is None
    monkeypatch.setattr(page, "MOST_VALUES", 2)
    assert heat_of(row(10.0), row(5.0, compile="inductor")) is not None
    assert heat_of(row(10.0), row(5.0, compile="inductor"), row(5.0, compile="thunder")) is None


def test_without_a_speed_another_number_is_shown():
    steps = [
        row(metrics={"step_time_median_s": one}, compile=name) for one, name in ((0.1, "eager"), (0.2, "inductor"))
    ]
    assert heat_of(*steps).measure == "step ms"


def test_a_text_is_its_number():
    assert page.as_number("10,370.5") == 10370.5 and page.as_number("–") != page.as_number("–")


# --- pictures


@pytest.fixture
def drawn(monkeypatch):
    """What a picture is made of: (points, labels of its axes)."""
    for name in ("scatter", "curves"):
        monkeypatch.setattr(charts, name, lambda points, x, y: (points, x, y) if points else "")


def test_the_points_of_memory_against_speed(drawn):
    peak = {"peak_memory_allocated_bytes": 3 * 2**29}
    rows = [row(1000.0, metrics=peak), row(5.0, compile="thunder"), row(2000.0, metrics=peak, compile="inductor")]
    points, *axes = page.memory_picture(tables(*rows))
    assert axes == ["peak GiB a device", "tokens/s/device"]
    assert [(one.x, one.y, one.series, one.row) for one in points] == [
        (1.5, 1000.0, "eager", 0), (1.5, 2000.0, "inductor", 2),
    ]  # fmt: skip
    assert points[0].title == f"{make_cell().slug}: 1,000 tokens/s/device"
    assert page.memory_picture(tables(*rows[:2])) == ""


def test_colours_tell_the_first_label_apart_that_has_few_values(drawn):
    peak = {"peak_memory_allocated_bytes": 2**30}

    def series(rows):
        return [one.series for one in page.memory_picture(tables(*rows))[0]]

    few = [row(1.0, metrics=peak, strategy=name) for name in ("single", "ddp")]
    assert series(few) == ["single", "ddp"]
    many = [row(1.0, metrics=peak, leaves={"seq_len": n}) for n in range(1, 10)]
    assert series(many) == ["all"] * 9 and series(many[:8]) == [str(n) for n in range(1, 9)]


def test_the_points_of_speed_over_the_micro_batch(drawn):
    def sized(size, speed=None, retries=None, **given):
        return row(speed, metrics={"num_alloc_retries": retries}, leaves={"micro_batch_size": size}, **given)

    rows = [
        sized(1, 10.0, 0), sized(2, 20.0, 1), sized(4), sized(1, 5.0, compile="inductor"),
        sized(2, status="oom", compile="inductor"),
    ]  # fmt: skip
    points, *axes = page.batch_picture(tables(*rows))
    assert axes == ["micro-batch", "tokens/s/device"]
    assert [(one.x, one.y, one.series, one.row, one.is_doubtful) for one in points] == [
        (1.0, 10.0, "eager", 0, False), (2.0, 20.0, "eager", 1, True),
    ]  # fmt: skip
    assert [one.title for one in points] == ["eager, micro-batch 1", "eager, micro-batch 2, 1 allocator retry"]
    assert page.batch_picture(tables(*rows[2:])) == ""


def test_a_batch_whose_retries_are_unknown_is_drawn_without_them(drawn):
    """As on a CPU, whose memory has no such allocator."""
    points, *_ = page.batch_picture(tables(*(row(10.0 * size, leaves={"micro_batch_size": size}) for size in (1, 2))))
    assert [(one.title.rpartition(", ")[2], one.is_doubtful) for one in points] == [
        ("micro-batch 1", False), ("micro-batch 2", False),
    ]  # fmt: skip
