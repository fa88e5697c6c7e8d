"""Tables as lines of a width: what stands beside what, and what follows below."""

import pandas as pd
import pytest

from benchrunner.report import layout
from benchrunner.report.compatibility import Matrix
from benchrunner.report.content import make_tables
from samples import make_cell, make_record, make_row

SHORT = pd.DataFrame({"a": ["xxx", "x"], "bb": ["y", "yy"]})


def test_columns_stand_beside_each_other_where_they_just_fit():
    assert layout.side_by_side(SHORT, 7) == ["a    bb", "xxx  y", "x    yy"]
    assert layout.side_by_side(SHORT, 6) is None
    assert layout.side_by_side(SHORT.iloc[:0], 6) == layout.aligned(SHORT.iloc[:0], 6) == []


@pytest.mark.parametrize(
    ("width", "lines"),
    [
        (24, ["tokens/s/device  step ms", "1                2"]),
        (23, ["tokens", "/s       step", "/device  ms", "1        2"]),
        (13, ["tokens", "/s       step", "/device  ms", "1        2"]),
        (12, ["1; step ms 2"]),
    ],
)
def test_headings_are_broken_before_a_table_becomes_a_list(width, lines):
    assert layout.aligned(pd.DataFrame({"tokens/s/device": ["1"], "step ms": [2]}), width) == lines


def test_headings_are_broken_into_as_few_lines_as_the_column_is_wide():
    frame = pd.DataFrame({"peak GiB at most": ["123456789"], "n": ["1"]})
    assert layout.side_by_side(frame, 12) == ["peak GiB", "at most    n", "123456789  1"]


def test_a_row_of_a_list_says_what_is_known_and_never_more_than_the_width():
    frame = pd.DataFrame({"name": ["ddp"], "note": ["a long te-xt here"], "empty": [""], "none": ["–"]})
    assert layout.aligned(frame, 12) == ["ddp; note a", "    long", "    te-xt", "    here"]


def test_no_text_breaks_a_line():
    assert layout.aligned(pd.DataFrame({"a": ["x\ny"], "b": [1.5]}), 80) == ["a    b", "x y  1.5"]


def test_what_is_wanted_least_is_left_out_first():
    frame = pd.DataFrame({
        "step ms": ["1.00"], "p90 ms": ["2.00"], "reserved GiB": ["3.00"], "alloc retries": ["0"], "x": ["y"],
    })  # fmt: skip
    names = [layout.narrowed(frame, width)[1] for width in (80, 31, 24, 18, 10, 6)]
    every = ["alloc retries", "p90 ms", "reserved GiB", "step ms"]
    assert names[0] == [] and names[-1] == every
    assert all(one == every[: len(one)] for one in names) and names == sorted(names, key=len)
    assert layout.narrowed(frame, 0)[0].equals(frame), "where nothing helps all stay"
    assert layout.left_out(["p90 ms", "fit"], 30) == ["Left out at 30 columns: p90", "ms, fit."]
    assert layout.left_out([], 30) == []


def test_a_column_that_says_nothing_of_any_row_goes_first():
    frame = pd.DataFrame({"a": ["x", "y"], "settings": ["none", "0"], "flags": ["none", "f"]})
    kept, without = layout.narrowed(frame, 8)
    assert (list(kept), without) == (["a", "flags"], ["settings"])


def test_below_its_labels_a_row_has_numbers_and_a_text():
    frame = pd.DataFrame({"strategy": ["ddp", "single"], "n": ["1", "22"], "why": ["because of it", ""]})
    assert layout.below_labels(frame, 1, 12) == [
        "    n", "ddp", "    1", "    because", "    of it", "single", "    22",
    ]  # fmt: skip
    assert layout.below_labels(frame, 0, 12) is None and layout.below_labels(frame, 1, 5) is None


def test_a_table_in_pieces_has_its_labels_in_each_and_groups_in_one():
    frame = pd.DataFrame({"k": ["key"], **{f"{name}{n}": ["12"] for name in "abc" for n in range(3)}})
    whole, pair = layout.aligned(frame, 80), layout.in_pieces(frame, 1, 29)
    assert layout.in_pieces(frame, 1, 39) == whole and len(whole[0]) == 39
    assert pair == [
        "k    a0  a1  a2  b0  b1  b2", "key  12  12  12  12  12  12", "", "k    c0  c1  c2", "key  12  12  12",
    ]  # fmt: skip
    assert layout.in_pieces(frame, 1, 27) == pair and len(layout.in_pieces(frame, 1, 26)) == 8
    assert layout.in_pieces(frame.iloc[:, :3], 1, 39, group=2) == ["k    a0  a1", "key  12  12"]


def test_numbers_below_labels_go_without_what_is_wanted_least():
    frame = pd.DataFrame({"strategy": ["ddp"], "step ms": ["1234567"], "p90 ms": ["7654321"], "why": [""]})
    assert layout.below_labels(frame, 1, 16) == [
        "    step ms", "ddp", "    1234567", "Left out at 16", "columns: p90 ms.",
    ]  # fmt: skip


def test_a_heading_of_two_words_may_be_broken_above_reasons():
    frame = pd.DataFrame({"seq len": ["64"], "n": ["1"], "reason": ["why"]})
    assert layout.with_reasons(frame, 10) == ["seq len  n", "64       1", "    why"]
    assert layout.with_reasons(frame, 9) == ["seq", "len  n", "64   1", "    why"]


@pytest.mark.parametrize("name", ["status", "verdict", "works"])
def test_what_became_of_a_row_stands_first(name):
    frame = pd.DataFrame({"value": ["ddp"], name: ["ok"], "reason": [""]})
    assert layout.with_reasons(frame, 80)[0].split() == [name, "value"]


def test_a_word_with_a_hyphen_stays_whole():
    assert layout.wrapped("aaa bbb-ccc", 12) == ["    aaa", "    bbb-ccc"]


def test_reasons_stand_wrapped_below_their_rows_and_the_verdict_first():
    frame = pd.DataFrame({"name": ["ddp", "single"], "verdict": ["run", "skipped"], "reason": ["", "be\ncause of it"]})
    assert layout.with_reasons(frame, 16) == [
        "verdict  name", "run      ddp", "skipped  single", "    be cause of", "    it",
    ]  # fmt: skip
    assert layout.with_reasons(frame, 12) == [
        "run; name", "    ddp", "skipped;", "    name", "    single", "    be cause", "    of it",
    ]  # fmt: skip
    assert layout.with_reasons(frame.iloc[:0], 16) == []


def test_heads_of_several_lines_stand_above_reasons_too():
    frame = pd.DataFrame({"status": ["ok"], "step ms": ["1"], "reason": ["why"]})
    assert layout.with_reasons(frame, 12) == ["        step", "status  ms", "ok      1", "    why"]


def test_one_cell_is_not_said_to_be_several():
    row = make_row(make_cell(), make_record(make_cell(), "failed", "failed.exit", "some reason"))
    lines = layout.unmeasured_lines(make_tables("t", [row], [], []).results, 20)
    assert lines[0] == "failed  failed.exit, 1 cell" and lines[-1] == "    some reason"
    cells = [make_cell(strategy=name) for name in ("single", "ddp", "fsdp_stage3")]
    rows = [make_row(cell, make_record(cell, "failed", "failed.exit", "r")) for cell in cells]
    lines = layout.unmeasured_lines(make_tables("t", rows, [], []).results, 34)
    assert lines[0] == "failed  failed.exit, 3 cells" and len(lines) > 4
    assert all(line.startswith("  ") and len(line) <= 34 for line in lines[1:])


def test_a_matrix_has_its_corner():
    matrix = Matrix("t", "strategy", pd.DataFrame({"fp32": ["✓"]}, index=["ddp"]))
    assert layout.matrix_lines(matrix, 80) == ["strategy  fp32", "ddp       ✓"]


def test_paths_stay_whole_and_facts_are_indented():
    path = "/a-long/path/that-is/wider-than"
    assert layout.paragraph(f"see {path}\nnow", 20) == ["see", path, "now"]
    assert layout.pairs([("GPU", "a b c"), ("x", "y")], 8) == ["GPU: a b", "    c", "x: y"]
