import json
import re
import subprocess
import sys
from dataclasses import replace

import pytest

from benchrunner.config import hydra_app
from benchrunner.config.matrix import Row
from benchrunner.core import arithmetic, paths
from benchrunner.core import cell as cell_module
from benchrunner.core.errors import SweepDirError, UsageError
from benchrunner.core.paths import CHECKOUT
from benchrunner.plan import dry_runs, planner, rules
from benchrunner.store import plan_file
from samples import CPU, H200, make_cell, option, read_yaml

WORDS = [
    "strategy=single,fsdp",
    "model=debug,llama2-7b",
    "model.num_layers=2,3",
    "seq_len=64",
    "measure.steps=3",
    "precision=bf16,fp8",
    "launcher=slurm",
    "sweep.exclude=[{match:{seq_len:64,strategy:single,precision:fp8},reason:no}]",
]


RULES = rules.load_rules(paths.config_dir() / "compat.yaml")


def make_plan(words=WORDS, hardware=H200):
    expansion = hydra_app.expand(words, multirun=True)
    return planner.make_plan(expansion, hardware, RULES)


@pytest.fixture(scope="module")
def planned():
    return make_plan()


def test_cells_keep_the_order_of_the_words(planned):
    found = [
        (item.cell.axes["strategy"], item.cell.axes["model"], item.cell.config.model.num_layers)
        for item in planned.cells
    ]
    assert len(found) == 16
    assert found[::2][:4] == [
        ("single", "debug", 2),
        ("single", "debug", 3),
        ("single", "llama2-7b", 2),
        ("single", "llama2-7b", 3),
    ]


def test_struck_out_and_ruled_out_cells_stay_in_the_plan(planned):
    codes = {item.reason_code for item in planned.cells}
    assert "skipped.excluded" in codes
    assert all(item.reason for item in planned.cells if item.verdict != "run")


def test_the_file_gives_back_every_cell_exactly(planned, tmp_path):
    directory = plan_file.write_plan(planned, tmp_path)
    assert plan_file.load_plan(directory) == planned


def test_the_file_gives_back_cells_that_are_predictions_alone(tmp_path):
    asked = make_plan(["predict=only", "predict.formula=own,llm-analysis-2023"])
    assert plan_file.load_plan(plan_file.write_plan(asked, tmp_path)) == asked


def test_a_moved_directory_still_loads(planned, tmp_path):
    directory = plan_file.write_plan(planned, tmp_path / "a")
    moved = directory.rename(tmp_path / "elsewhere")
    assert plan_file.load_plan(moved) == planned
    assert str(tmp_path) not in (moved / "plan.json").read_text()


def test_a_plan_with_a_secret_in_it_is_not_written(planned, tmp_path, monkeypatch):
    monkeypatch.setenv("GITHUB_PAT", "max-2048")
    plan = replace(planned, arguments=["model.description=max-2048"])
    with pytest.raises(UsageError, match="the environment variable GITHUB_PAT"):
        plan_file.write_plan(plan, tmp_path)
    assert not list(tmp_path.glob("*/*"))


def test_every_option_is_written_once(planned):
    data = plan_file.plan_to_dict(planned)
    assert len(data["sections"]["strategy"]) == 2
    assert len(data["sections"]["model"]) == 4
    assert data["common"]["optimizer"]["name"] == "adamw"
    assert data["settings"] == {"measure.steps": 3, "launcher": "slurm"}
    assert all("measure.steps" not in entry["overrides"] for entry in data["cells"])


def test_the_directory_is_stamped_exclusively_and_latest_points_to_it(planned, tmp_path):
    first, second = plan_file.write_plan(planned, tmp_path), plan_file.write_plan(planned, tmp_path)
    assert second.name == f"{first.name}-2"
    assert (tmp_path / "latest").resolve() == second.resolve()
    assert sorted(path.name for path in (tmp_path / "cli").iterdir()) == [first.name, second.name]


def test_an_unwritable_place_is_one_message(planned, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="out_dir"):
        plan_file.write_plan(planned, tmp_path / "file")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "not a sweep"), ("{", "damaged"), ("[]", "schema_version None"), ('{"schema_version": 99}', "reads 1"),
        ('{"schema_version": 1, "cells": [{}]}', "damaged"),
    ],
)  # fmt: skip
def test_what_is_no_plan_is_refused(tmp_path, text, message):
    if text is not None:
        (tmp_path / "plan.json").write_text(text)
    with pytest.raises(SweepDirError, match=message):
        plan_file.load_plan(tmp_path)


def test_the_document_has_the_promised_fields(planned):
    document = json.loads(json.dumps(plan_file.plan_document(planned), allow_nan=False))
    assert document.keys() == {"schema_version", "hardware", "cells"}
    assert document["cells"][0].keys() == {
        "cell_id", "config_digest", "slug", "axes", "overrides", "micro_batch_size", "global_batch_size", "seq_len",
        "devices", "nodes", "world_size", "num_parameters", "verdict", "reason_code", "reason", "flags", "predicted",
        "left_out", "search",
    }  # fmt: skip
    assert document["cells"][4]["num_parameters"] == 666914816


def test_the_words_of_a_cell_give_the_same_cell_again():
    words = ["compile=inductor", "compile.mode=max-autotune", "activation_checkpointing=selective", "hardware=cpu"]
    made = make_plan([*words, "activation_checkpointing.every=1/4", "measure.steps=3", "timeout_s=7"], CPU)
    [first] = made.cells
    [again] = make_plan(first.cell.as_overrides(), CPU).cells
    assert again.cell == first.cell


def test_slugs_stay_unique_when_ids_begin_alike(monkeypatch):
    monkeypatch.setattr(cell_module, "make_slug", lambda axes, overrides, cell_id: "x" * 93 + "-012345")
    rows = [Row(axes=cell.axes, overrides=cell.overrides, config=cell.config) for cell in map(with_seed, range(3))]
    slugs = [cell.slug for cell in planner.make_cells(rows, CPU)]
    assert len(set(slugs)) == 3
    assert all(len(slug) <= 100 for slug in slugs)


LONG = ["activation_checkpointing=selective", "activation_checkpointing.every=per_op", "hardware=a100-sxm-80gb",
        "strategy=fsdp_stage3", "model.d_model=256", "model.num_heads=8", "measure.steps=3"]  # fmt: skip


def test_a_slug_that_is_cut_says_first_what_varies(tmp_path):
    planned = make_plan([*LONG, "seed=0,1", "micro_batch_size=1,2"], CPU)
    ends = [one.cell.slug.partition("_adamw_")[2] for one in planned.cells]
    assert ["micro_batch_size-2" in end for end in ends] == [False, True, False, True]
    assert ["seed-1" in end for end in ends] == [False, False, True, True]
    assert list(planned.cells[3].cell.overrides)[-1] == "measure.steps"
    found = plan_file.load_plan(plan_file.write_plan(planned, tmp_path))
    assert [one.cell.slug for one in found.cells] == [one.cell.slug for one in planned.cells]


def with_seed(seed):
    return make_cell(leaves={"seed": seed})


def test_a_cpu_gets_two_ranks():
    assert {item.cell.sizes.world_size for item in make_plan(["strategy=ddp"], CPU).cells} == {2}
    assert {item.cell.sizes.world_size for item in make_plan(["strategy=ddp"], replace(H200, num_devices=8)).cells} == {
        8
    }


def test_ten_thousand_cells_are_planned_without_torch():
    script = CHECKOUT / "benchmarks" / "plan_10k.py"
    done = subprocess.run([sys.executable, script, "--skip-hydra"], capture_output=True, text=True, check=True)
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["num_cells"] >= 10_000
    assert result["torch_imported"] is False


# --- rows that are made by hand


def row_of(excluded=None, **given):
    cell = make_cell(**given)
    return Row(axes=cell.axes, overrides=cell.overrides, config=cell.config, excluded_reason=excluded)


def plan_rows(rows, hardware=H200, **how):
    models = {"debug": read_yaml("model/debug") | {"name": "debug"}}
    expansion = hydra_app.Expansion(
        rows=rows, sweep_name="mine", arguments=["-m", "x"], models=models, untouched=option
    )
    return planner.make_plan(expansion, hardware, RULES, **how)


def test_a_plan_says_where_it_came_from_and_when():
    made = plan_rows([row_of()])
    assert (made.sweep_name, made.arguments, made.hardware, made.cards) == ("mine", ["-m", "x"], H200, {})
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", made.created_at)


@pytest.mark.parametrize("size", [3, "max"])
def test_what_is_struck_out_says_why(size):
    struck, other = plan_rows([row_of("not today", leaves={"micro_batch_size": size}), row_of(strategy="ddp")]).cells
    assert (struck.verdict, struck.reason_code) == ("skipped", "skipped.excluded") and struck.reason == "not today"
    assert (other.verdict, other.reason_code) == ("run", None)


def test_a_search_begins_where_arithmetic_says_and_a_cell_is_itself():
    search, cell = plan_rows([row_of(leaves={"micro_batch_size": "max"}), row_of()]).cells
    assert search.predicted["micro_batch_size"] > 1 and "micro_batch_size" not in cell.predicted


def test_a_plan_is_launched_on_this_machine_alone():
    absent = replace(H200, is_present=False)
    (planned,), (launched,) = (plan_rows([row_of()], absent, **how).cells for how in ({}, {"launch": True}))
    assert (planned.verdict, launched.reason_code) == ("run", "skipped.devices")


@pytest.mark.parametrize(("here", "given", "said"), [(7, None, "7 CPU cores"), (7, 3, "3 CPU cores"),
                                                     (None, None, "1 CPU core,")])  # fmt: skip
def test_the_cores_are_those_given_or_of_this_machine(monkeypatch, here, given, said):
    monkeypatch.setattr(planner.os, "cpu_count", lambda: here)
    (slow,) = plan_rows([row_of(leaves={"timeout_s": 1e-9})], CPU, num_cores=given).cells
    assert slow.reason_code == "skipped.devices" and said in slow.reason


def test_a_card_of_each_model_that_was_changed():
    whole = make_cell().config.model
    card = {"num_layers": 4, "num_parameters": arithmetic.num_parameters(whole)}
    assert plan_rows([row_of(), row_of(leaves={"model.num_layers": 2})]).cards == {"debug": card}


def test_orderings_that_cannot_be_judged_are_noted_for_the_machine():
    entry = {"name": "n", "metric": "step_time_median_s", "because": "b", "more": {"compile": "eager"}}
    entry |= {"less": {"compile": "inductor", "device_type": "cuda"}}
    rows = [row_of(leaves={"sweep.expect": [entry]}, **axes) for axes in ({}, {"compile": "inductor"})]
    assert plan_rows(rows).notes == ()
    (note,) = plan_rows(rows, CPU).notes
    assert note.endswith("will not be judged: n: no cell of this sweep is meant (less)")


def test_a_cell_alone_whose_slug_is_cut_keeps_the_order_of_its_words():
    leaves = {"model.d_model": 256, "model.num_heads": 8, "global_batch_size": 1024, "micro_batch_size": 1024}
    (cell,) = planner.make_cells([row_of(leaves=leaves, strategy="fsdp_stage3")], H200)
    assert list(cell.overrides) == list(leaves) and len(cell.slug) <= 100


def test_a_slug_that_is_cut_begins_with_what_its_row_alone_has():
    leaves = {"model.d_model": 256, "model.num_heads": 8, "global_batch_size": 1024, "micro_batch_size": 1024}
    rows = [row_of(leaves={**leaves, "seed": seed}, strategy="fsdp_stage3") for seed in (1, 2)]
    assert [list(cell.overrides) for cell in planner.make_cells(rows, H200)] == [["seed", *leaves]] * 2


ASKS = {"predict.name": "dry_run", "predict.skip_oom": True, "predict.audit_every": 10**9}


@pytest.fixture
def too_much(monkeypatch):
    """Dry runs find more than the device has, which is a byte more than arithmetic asks for."""
    answer = {f"{name}_memory_bytes": 2**40 for name in ("peak", "reserved", "least")} | {"phase": "forward"}
    monkeypatch.setattr(dry_runs.dry_runs, "dry_run", lambda questions, *_: [answer] * len(questions))
    return replace(H200, memory_bytes=plan_rows([row_of()]).cells[0].predicted["peak_memory_bytes"] + 1)


def test_a_dry_run_decides_about_its_own_cells_alone(too_much):
    rows = [row_of(leaves={**ASKS, "compile.scope": "model"}), row_of("no", leaves=ASKS, strategy="ddp"),
            row_of(leaves={"seed": 3})]  # fmt: skip
    own, struck, arithmetics = plan_rows(rows, too_much).cells
    assert (own.reason_code, own.left_out) == ("skipped.predicted_oom", ("compile.scope=model",))
    assert own.cell.axes["strategy"] == "single" and own.predicted["method"] == "dry_run"
    assert struck.reason_code == "skipped.excluded"
    assert (arithmetics.verdict, arithmetics.flags) == ("run", ["memory_tight"])


def test_a_dry_run_of_its_first_probe_does_not_rule_a_search_out(too_much):
    (search,) = plan_rows([row_of(leaves={**ASKS, "micro_batch_size": "max"})], too_much).cells
    assert (search.verdict, search.predicted["method"]) == ("run", "dry_run")
