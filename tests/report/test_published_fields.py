"""What stands in each field of a published table, of a layout that is made here."""

import shlex

import pytest

from benchrunner.core.errors import ConfigError
from benchrunner.report import published
from benchrunner.report.published import deviations, layout_names, load_layout, published_tables
from samples import CPU, make_cell, make_record, make_row

LAYOUT = """
title: T
source: S
machine: M
cells: {model: debug, device_type: cpu}
tables:
  - title: one
    labels: [size, base]
    cells: {workload: train}
    columns:
      - {name: ms, quantity: last_iteration_ms, decimals: 2}
      - {name: n, quantity: trainable_parameters}
      - {name: gap, quantity: hardware_tflops, percent_over: base, digits: 2}
      - {name: works, quantity: claim, cells: {precision: bf16, device_type: cpu}}
    lines:
      - [1, "2,000", {strategy: single}, 1.5, 1000, 10, X]
      - ["", "1,000", {strategy: ddp}, OOM, null, -5.25, V]
    remarks: [{cells: {strategy: single}, text: it fits here}]
"""
HEADINGS = [
    "size", "base", "ms", "published", "ours ÷ published", "n", "published", "ours ÷ published", "gap", "published",
    "ours ÷ published", "works: claimed", "rule", "observed",
]  # fmt: skip
SINGLE, DDP = make_cell(), make_cell(strategy="ddp")


@pytest.fixture
def fill(tmp_path, monkeypatch):
    """(rows) → the tables of a layout that is called `mine`."""
    monkeypatch.setattr(published, "_folder", lambda: tmp_path)

    def tables(*rows, text=LAYOUT, sweeps=None):
        (tmp_path / "mine.yaml").write_text(text)
        return published_tables(load_layout("mine"), rows, CPU, sweeps)

    return tables


def measured(cell, seconds=0.0123456, rate=2.2e15, **changes):
    ranks = [{"rank": 0, "state": "done", "phase": "teardown", "phases_s": {}, "step_times_s": [9.0, seconds]}]
    metrics = {"step_time_median_s": seconds, "hardware_flops_per_second_per_device": rate}
    return make_row(cell, make_record(cell, ranks=ranks, metrics=metrics, **changes))


def test_ours_stands_beside_what_was_published_and_their_ratio(fill):
    oom = make_row(DDP, make_record(DDP, "oom", "oom.device", "because"))
    (table,) = fill(measured(SINGLE), oom)
    assert (table.title, table.num_labels, list(table.frame)) == ("one", 2, HEADINGS)
    assert table.above == "T. Published: S, on M. Ours differs: "
    first, second = table.frame.to_numpy().tolist()
    assert first == [
        "1", "2,000", "12.35", "1.5", "8.23", "919,168", "1,000", "919.17", "+10", "+10", "1.00", "X", "-", "✓ 1/1",
    ]  # fmt: skip
    assert second[:-1] == ["", "1,000", "OOM", "OOM", "-", "OOM", "-", "-", "OOM", "-5.25", "-", "V", "-"]
    assert table.notes == ["1, 2,000: it fits here", "1,000: oom.device: because"]


def test_a_difference_below_has_its_minus_and_a_large_number_no_exponent(fill):
    (table,) = fill(measured(SINGLE, 1234.5, 1e15))
    line = table.frame.iloc[0].tolist()
    assert line[2:5] == ["1,234,500.0", "1.5", "823000.00"] and line[8:11] == ["-50", "+10", "-5.00"]


@pytest.mark.parametrize(("rate", "gap", "ours", "theirs"), [(2e15, "0", "0", "0"), (2.01e15, "0.5", "+0.50", "+0.5")])
def test_no_difference_has_no_sign_and_a_small_one_has(fill, rate, gap, ours, theirs):
    (table,) = fill(measured(SINGLE, rate=rate), text=LAYOUT.replace("1000, 10, X", f"1000, {gap}, X"))
    assert table.frame.iloc[0].tolist()[8:10] == [ours, theirs]


def test_a_column_that_nothing_counts_is_named(fill):
    (table,) = fill(measured(SINGLE, rate=None), measured(DDP))
    assert table.frame.iloc[0].tolist()[8:11] == ["-", "+10", "-"]
    assert table.notes[0] == "1, 2,000, gap: the cell is ok; nothing counts this on its device"
    assert table.notes[1:] == ["1, 2,000: it fits here"]


def test_what_is_not_in_the_sweep_names_the_sweep_that_has_it(fill):
    (table,) = fill(make_row(make_cell(workload="forward")))
    assert table.frame.iloc[0].tolist() == ["1", "2,000", "-", "1.5", "-", "-", "1,000", "-", "-", "+10", "-", "X", "-",
                                            table.frame.iloc[0].tolist()[-1]]  # fmt: skip
    assert table.notes == [f"{place}: not in this sweep; bench +sweeps=mine has it" for place in ("1, 2,000", "1,000")]


def test_a_column_may_be_about_some_cells_of_a_line(fill):
    (table,) = fill(measured(make_cell(precision="fp32")))
    line = table.frame.iloc[0].tolist()
    assert line[2] == "12.35" and line[-3:-1] == ["X", "-"]
    assert table.notes[0] == "1, 2,000, works: not in this sweep; bench +sweeps=mine has it"


def test_a_rule_stands_beside_the_claim(fill):
    ruled = [
        make_row(make_cell(strategy="ddp", leaves={"seed": n}), verdict="unsupported", code=code, reason="it cannot")
        for n, code in enumerate(("rule.b", "rule.a", "rule.b"))
    ]
    (table,) = fill(*ruled)
    line = table.frame.iloc[1].tolist()
    assert line[2] == "N/A" and line[-3:-1] == ["V", "rule.a, rule.b"] and "3/3" in line[-1]
    assert "1,000: rule.b: it cannot" in table.notes


@pytest.mark.parametrize(
    ("status", "code", "text"),
    [
        ("skipped", "skipped.budget", "not run"), ("skipped", "skipped.predicted_oom", "OOM (predicted)"),
        ("timeout", "timeout.step", "timeout"), ("invalid", "validity.x", "invalid"),
    ],
)  # fmt: skip
def test_what_has_no_number_has_a_word(fill, status, code, text):
    (table,) = fill(make_row(SINGLE, make_record(SINGLE, status, code, "r")))
    assert table.frame.iloc[0].tolist()[2:4] == [text, "1.5"]


def test_what_was_not_run_names_the_command_that_fills_it(fill):
    waiting = make_row(SINGLE)
    (table,) = fill(waiting, sweeps={"cli/one": "out/a b"})
    command = f"bench resume {shlex.quote('out/a b')} --cells {SINGLE.cell_id}"
    assert table.notes[0].startswith("1, 2,000: skipped.interrupted: no record")
    assert table.notes[0].endswith(f"; fill it by: {command}")
    (table,) = fill(waiting, sweeps={"cli/other": "out"})
    assert table.notes[0].partition("; fill it by: ")[2].startswith("bench model=debug")
    for code in ("skipped.excluded", "skipped.predicted_oom", "skipped.no_prediction"):
        (table,) = fill(make_row(SINGLE, make_record(SINGLE, "skipped", code, "no")))
        assert table.notes[0] == f"1, 2,000: {code}: no"
    (table,) = fill(make_row(SINGLE, make_record(SINGLE, "failed", "failed.exit", "no")))
    assert table.notes[0] == "1, 2,000: failed.exit: no"


def test_what_thunder_chose_is_said_once_a_line(fill):
    rows = [measured(make_cell(leaves={"seed": seed})) for seed in (1, 2)]
    for row in rows:
        row.record.ranks[0]["choices"] = {"thunder_executors": ["a", "b"]}
    (table,) = fill(*rows)
    assert table.notes[:2] == ["1, 2,000: thunder's executors were a, b", "1, 2,000: it fits here"]
    failed = make_row(DDP, make_record(DDP, "failed", "c", "r", ranks=rows[0].record.ranks))
    assert not any("executors" in note for note in fill(failed)[0].notes)


PREDICTED = """
title: T
source: S
machine: M
tables:
  - title: one
    labels: [a]
    columns: [{name: s, quantity: predicted_prefill_ms, digits: 4}]
    lines: [[x, {strategy: single}, 22.41], [y, {strategy: ddp}, 0]]
"""


def test_a_prediction_is_an_answer_and_says_its_limits(fill):
    predicted = {"method": "m", "note": "n", "parts": {"prefill_s": 0.022407}}
    rows = [make_row(cell, verdict="skipped", code="skipped.predict_only", reason="r") for cell in (SINGLE, DDP)]
    for row, said in zip(rows, (predicted, {"method": "own", "parts": {"prefill_s": 1.0}}), strict=True):
        object.__setattr__(row.planned, "predicted", said)
    (table,) = fill(*rows, text=PREDICTED)
    assert table.frame.to_numpy().tolist() == [["x", "22.41", "22.41", "1.00"], ["y", "1,000", "0", "-"]]
    assert table.above.endswith("Predicted, not run. Limits of m: n. Predicted, not run. Limits of own: none known.")
    assert table.notes == []


def test_models_that_overrides_changed_are_named_once(fill):
    leaves = {"model.num_layers": 2, "model.dropout": 0.1, "seed": 3}
    rows = [measured(make_cell(strategy=name, leaves=leaves)) for name in ("single", "ddp")]
    assert fill(*rows)[0].above.endswith(" Not the published models: model.num_layers=2.")


PROBED = """
title: T
source: S
machine: M
cells: {workload: train, device_type: cpu}
tables:
  - title: one
    labels: [size]
    probes: true
    cells: {strategy: single}
    columns: [{name: ms, quantity: last_iteration_ms, decimals: 2}, {name: n, quantity: trainable_parameters}]
    lines: [[1, {micro_batch_size: 1}, 1.5, 2]]
"""


def test_sizes_that_a_search_tried_follow_as_lines_of_their_own(fill):
    def probe(size, **given):
        row = measured(make_cell(leaves={"micro_batch_size": size}, **given))
        object.__setattr__(row.planned, "probe_of", "search")
        return row

    rows = [probe(12), probe(3), probe(1), measured(make_cell(leaves={"micro_batch_size": 7}))]
    (table,) = fill(*rows, probe(5, workload="forward"), probe(6, strategy="ddp"), text=PROBED)
    assert table.frame["size"].tolist() == ["1", "3", "12"]
    assert table.frame.iloc[1].tolist() == ["3", "12.35", "-", "-", "919,168", "-", "-"] and table.notes == []
    alone = fill(*rows, text=PROBED.replace("probes: true", "probes: false"))[0]
    assert alone.frame["size"].tolist() == ["1"], "where the layout asks for them alone"


def test_layouts_are_found_by_name(fill, tmp_path):
    fill(measured(SINGLE))
    (tmp_path / "also.yaml").write_text(PREDICTED)
    assert layout_names() == ["also", "mine"]
    with pytest.raises(ConfigError, match=r"^--layout: no layout 'mime'.*mine.*; allowed: also, mine$") as caught:
        load_layout("mime")
    assert caught.value.key == "--layout"
    layout = load_layout("also")
    assert (layout.name, layout.title, layout.source, layout.machine) == ("also", "T", "S", "M")


@pytest.mark.parametrize(
    ("right", "wrong"),
    [("{strategy: single}, 1.5", "{strategi: single}, 1.5"), ("{precision: bf16", "{precison: bf16"),
     ("{strategy: single}, text", "{stratgy: single}, text")],
)  # fmt: skip
def test_a_key_of_a_layout_that_is_none_is_named_with_its_file(fill, right, wrong):
    with pytest.raises(ConfigError, match="unknown key") as caught:
        fill(text=LAYOUT.replace(right, wrong))
    assert caught.value.key == "layouts/mine.yaml"


def test_what_differs_is_said_by_the_header_of_the_sweep(fill, tmp_path, monkeypatch):
    monkeypatch.setattr(published, "config_dir", lambda: tmp_path)
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "mine.yaml").write_text(
        "# A sweep.\n# Differs from the original: one\n#   thing, and\n# another.\nkey: 1\n# Not this.\n"
    )
    (tmp_path / "sweeps" / "plain.yaml").write_text("key: 1\n")
    assert deviations("mine") == "one thing, and another."
    assert deviations("plain") == deviations("none") == ""
    assert fill()[0].above.endswith("Ours differs: one thing, and another.")


def test_the_layouts_that_come_along():
    assert {"litgpt-train", "mingpt-fsdp"} < set(layout_names())
