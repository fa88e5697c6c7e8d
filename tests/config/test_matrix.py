from dataclasses import replace

import pytest

from benchrunner.config.matrix import Matrix, Pieces, _with, build_rows
from benchrunner.core.errors import ConfigError
from samples import make_tree

USUAL = {
    "model": "debug", "workload": "train", "strategy": "single", "precision": "bf16", "compile": "eager",
    "activation_checkpointing": "none", "engine": "native", "optimizer": "adamw",
}  # fmt: skip


def make_pieces(exclude=(), **changes):
    base = make_tree(USUAL, {"sweep.exclude": list(exclude), **changes})
    strategies = {name: make_tree({**USUAL, "strategy": name}, {})["strategy"] for name in ("single", "ddp")}
    untouched = make_tree(USUAL, {})
    pristine = {
        group: {untouched[group]["name"]: untouched[group]} for group in (*USUAL, "launcher", "hardware", "predict")
    }
    pristine["strategy"] = strategies
    return Pieces(base=base, options={"strategy": strategies}, pristine=pristine, defaults=untouched)


def rows_of(axes, **pieces):
    return build_rows([Matrix(axes=axes)], make_pieces(**pieces))


def test_an_empty_product_is_one_row():
    [row] = rows_of({})
    assert (row.axes, row.overrides, row.excluded_reason) == (USUAL, {}, None)


def test_changes_of_the_fixed_part_are_in_every_row():
    rows = rows_of({"strategy": ("single", "ddp")}, seq_len=8, timeout_s=5.0, out_dir="elsewhere")
    assert [row.overrides for row in rows] == [{"seq_len": 8, "timeout_s": 5.0}] * 2
    assert rows[0].config.model is rows[1].config.model, "what is alike is made once"


def test_a_launcher_other_than_the_usual_one_is_repeated_by_name():
    slurm, pieces = {**USUAL, "launcher": "slurm"}, make_pieces()
    pristine = {**pieces.pristine, "launcher": {"slurm": make_tree(slurm, {})["launcher"]}}
    base = make_tree(slurm, {"launcher.partition": "big"})
    [row] = build_rows([Matrix(axes={})], replace(pieces, base=base, pristine=pristine))
    assert row.overrides == {"launcher": "slurm", "launcher.partition": "big"}


def test_equal_cells_of_two_products_are_one_row():
    matrices = [Matrix(axes={"strategy": ("ddp", "single")}), Matrix(axes={"seq_len": (None, 8)})]
    rows = build_rows(matrices, make_pieces())
    assert [(row.axes["strategy"], row.config.seq_len) for row in rows] == [
        ("ddp", None),
        ("single", None),
        ("single", 8),
    ]


def included(*axes):
    return [Matrix(axes=one, place=f"sweep.include[{number}]") for number, one in enumerate(axes)]


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"timeout_s": (9.0,)}, r"timeout_s: .*include\[0\] \(timeout_s=5.0\) and .*include\[1\] \(timeout_s=9.0\)"),
        ({}, r"timeout_s: .*include\[1\] \(without it\) have the same cell; give both one value, or run a sweep for"),
        ({"timeout_s": (5.0,), "measure.steps": (3,)}, r"measure.steps: .*\(without it\) .*\(measure.steps=3\)"),
    ],
)
def test_one_cell_in_two_rows_has_one_value_of_each_setting(other, said):
    with pytest.raises(ConfigError, match=f"^{said}"):
        build_rows(included({"timeout_s": (5.0,)}, other), make_pieces())


def test_equal_rows_are_one_and_other_cells_have_their_own_settings():
    rows = build_rows(
        included({"timeout_s": (5.0,)}, {"timeout_s": (5.0,)}, {"strategy": ("ddp",), "timeout_s": (9.0,)}),
        make_pieces(),
    )
    assert [(row.axes["strategy"], row.config.timeout_s) for row in rows] == [("single", 5.0), ("ddp", 9.0)]


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        (
            {"brake": (3,)},
            r"brake: a sweep has one, but .*include\[0\] has 5 and .*include\[1\] has 3; write it outside",
        ),
        ({"out_dir": ("b",)}, "out_dir: a sweep has one"),
        ({"repeats": (2,)}, "repeats: a sweep has one"),
        ({"launcher.preload": (False,)}, r"launcher.preload: .* has True and .* has False"),
    ],
)
def test_what_a_sweep_has_once_no_row_has_for_itself(setting, said):
    rows = included({"strategy": ("single",)}, {"strategy": ("ddp",)} | setting)
    with pytest.raises(ConfigError, match=f"^{said}"):
        build_rows(rows, make_pieces())


def test_what_one_row_alone_has_of_a_sweep_is_refused():
    rows = included({"strategy": ("single",), "launcher.sbatch": ({"mem": "9G"},)}, {"strategy": ("ddp",)})
    with pytest.raises(ConfigError, match=r"^launcher\.sbatch\.mem: .*include\[0\] has 9G and .*include\[1\] has None"):
        build_rows(rows, make_pieces())


def test_shared_dicts_are_never_changed():
    pieces = make_pieces()
    before = dict(pieces.base["model"])
    rows = build_rows([Matrix(axes={"model.num_layers": (1, 2)})], pieces)
    assert [row.config.model.num_layers for row in rows] == [1, 2]
    assert pieces.base["model"] == before


@pytest.mark.parametrize(
    ("match", "struck"),
    [
        ({"strategy": "ddp"}, [False, False, True, True]),
        ({"strategy": "d*|x"}, [False, False, True, True]),
        ({"strategy": "!ddp"}, [True, True, False, False]),
        ({"seq_len": 8}, [True, False, True, False]),
        ({"seq_len": ">=16", "strategy": "single"}, [False, True, False, False]),
        ({"model": {"num_layers": "<3"}}, [False] * 4),
        ({"model.num_layers": 4}, [True] * 4),
        ({"launcher": "local"}, [True] * 4),
    ],
)
def test_excluded_rows_stay_with_their_reason(match, struck):
    rows = rows_of({"strategy": ("single", "ddp"), "seq_len": (8, 16)}, exclude=[{"match": match, "reason": "why"}])
    assert [row.excluded_reason for row in rows] == ["why" if hit else None for hit in struck]


@pytest.mark.parametrize(
    "entry", [{"match": {"strategy": "x"}}, {"match": "x", "reason": "y"}, {"match": {}, "reason": "y"}]
)
def test_an_entry_without_match_or_reason_is_refused(entry):
    with pytest.raises(ConfigError, match=r"^sweep\.exclude: "):
        rows_of({}, exclude=[entry])


def test_one_leaf_of_a_tree_is_another_in_a_copy():
    tree = {"a": {"b": {"c": 1, "d": 2}, "e": 3}, "f": 4}
    assert _with(tree, ["a", "b", "c"], 5) == {"a": {"b": {"c": 5, "d": 2}, "e": 3}, "f": 4}
    assert tree["a"]["b"]["c"] == 1
