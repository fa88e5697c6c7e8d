import json
import re

import pytest

from benchrunner.cli.commands.plan import NUM_BEST, parse_gib
from benchrunner.core.errors import UsageError


@pytest.mark.parametrize("order", [["-m", "plan", "--json"], ["plan", "--json", "-m"], ["plan", "-m", "--json"]])
def test_plan_is_one_json_document_wherever_the_flags_stand(bench, order):
    code, out, err, files = bench(*order, "strategy=single,ddp")
    assert (code, err, files) == (0, "", [])
    assert [cell["axes"]["strategy"] for cell in json.loads(out)["cells"]] == ["single", "ddp"]


def test_plan_shows_every_cell_as_a_table(bench):
    code, out, _, files = bench("plan", "-m", "model=debug,llama2-70b", "strategy=single,ddp", "hardware=cpu")
    assert (code, files) == (0, [])
    assert "llama2-70b" in out
    assert "skipped.predicted_oom" in out


def test_plan_works_for_hardware_that_is_not_there(bench):
    code, out, _, _ = bench(
        "plan", "--json", "hardware=h200-sxm-141gb", "devices=8", "model=llama2-7b", "strategy=fsdp"
    )
    [cell] = json.loads(out)["cells"]
    assert (code, cell["verdict"], cell["world_size"]) == (0, "run", 8)
    assert cell["predicted"]["step_time_s"] > 0


def test_the_overrides_of_a_planned_cell_paste_back(bench):
    words = ["micro_batch_size=2", "activation_checkpointing=selective", "activation_checkpointing.every=per_op"]
    first = json.loads(bench("plan", "--json", *words)[1])["cells"][0]
    again = json.loads(bench("plan", "--json", *first["overrides"].split())[1])["cells"][0]
    assert again == first


def test_a_sweep_file_from_anywhere_is_planned(bench, tmp_path):
    (tmp_path / "mine.yaml").write_text("# @package _global_\nhydra: {sweeper: {params: {strategy: 'single,ddp'}}}\n")
    code, out, _, _ = bench("plan", "--json", "mine.yaml", "seed=1")
    assert (code, len(json.loads(out)["cells"])) == (0, 2)


def test_a_document_holds_the_verdicts_that_are_asked_for(bench):
    words = ["-m", "--json", "hardware=cpu", "precision=bf16,fp8"]
    chosen = json.loads(bench("plan", *words, "--only", "unsupported")[1])["cells"]
    assert [cell["axes"]["precision"] for cell in chosen] == ["fp8"]
    assert len(json.loads(bench("plan", *words)[1])["cells"]) == 2


@pytest.mark.parametrize("flags", [["--json"], ["--only", "run"]])
def test_an_explanation_is_of_one_cell_in_sentences(refused, flags):
    refused(
        ["plan", "--explain", "1", *flags],
        f"--explain is of one cell, in sentences, and {flags[0]} asks for something else: one at a time",
    )


def test_a_wrong_override_is_refused(refused):
    refused(["plan", "strategy=dpp"], r"did you mean ddp\?")


H200 = "hardware=h200-sxm-141gb"


def test_the_table_shows_the_prediction(bench):
    code, out, _, _ = bench("plan", H200, "model=llama2-7b")
    assert (code, "60.0 ± 4%" in out, "fits" in out, "matmul" in out) == (0, True, True, True)


def test_predictions_can_be_switched_off(bench):
    [cell] = json.loads(bench("plan", "--json", H200, "predict=off")[1])["cells"]
    assert (cell["predicted"]["method"], cell["predicted"]["bound"]) == ("off", "lower")


def test_one_cell_is_explained(bench):
    code, out, _, _ = bench("plan", H200, "model=llama2-7b", "--explain", "1")
    assert code == 0 and "Peak memory, reached in loss" in out and "beside the allocator" in out
    assert bench("plan", "--explain", "9")[0] == 1
    words = ["workload=forward", "predict.formula=llm-analysis-2023"]
    code, out, _, _ = bench("plan", H200, "model=llama2-7b", *words, "--explain", "1")
    assert code == 0 and "matmul" not in out
    assert re.search(r"^weight +12\.2\n", out, re.M) and re.search(r"^prefill mlp ms +\d", out, re.M)
    code, out, err, _ = bench("plan", H200, "predict=off", "--explain", "1")
    assert (code, out) == (1, "") and "predict=analytic" in err


def test_an_explanation_says_what_the_allocator_takes_beside_the_peak(bench, monkeypatch):
    answer = {"peak_memory_bytes": 131 * 2**30, "reserved_memory_bytes": 142 * 2**30, "least_memory_bytes": 141 * 2**30}
    monkeypatch.setattr(
        "benchrunner.launch.dry_runs.dry_run", lambda asked, *_: [answer | {"phase": "loss"} for _ in asked]
    )
    _, out, _, _ = bench("plan", H200, "model=llama2-7b", "predict=dry_run", "--explain", "1")
    assert "131 ± 3% GiB of 140 GiB; the allocator takes 142 GiB for it, 141 at least: tight" in out.replace("\n", " ")
    assert "allocator takes" not in bench("plan", H200, "model=llama2-7b", "--explain", "1")[1]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--within", "80GiB"], "--within belongs to --maximise; memory_limit_gib=80 plans for a smaller card"),
        (
            ["--maximise", "mfu", "--only", "run"],
            "--maximise ranks cells, and --only asks for something else: one at a ",
        ),
        (
            ["--only", "run,skiped"],
            r"--only: 'skiped' is not one of run, unsupported, skipped \(did you mean skipped\?\)$",
        ),
    ],
)
def test_flags_that_do_not_go_together_are_refused_before_anything_is_planned(refused, flags, said):
    refused(["plan", *flags], f"^bench: {said}")


def test_the_best_settings_that_fit_are_ranked(bench):
    code, out, _, _ = bench(
        "plan", H200, "model=llama2-7b", "micro_batch_size=1,2", "--maximise", "tokens/s", "--within", "80GiB"
    )
    assert code == 0 and out.startswith("the best ") and "does not fit" not in out
    assert bench("plan", H200, "--maximise", "tokens/s", "--within", "much")[0] == 1
    for words, said in (
        (["--explain", "1"], "--maximise ranks cells, and --explain asks for something else: one at a time"),
        (["--only", "run"], "--maximise ranks cells, and --only asks for something else: one at a time"),
        (["--within", "80GB", "memory_limit_gib=40"], "--within is memory_limit_gib: give one of them"),
    ):
        assert bench("plan", H200, "--maximise", "tokens/s", *words)[::2] == (1, f"bench: {said}\n")
    code, _, err, _ = bench("plan", H200, "predict=off", "--maximise", "mfu")
    assert code == 1 and "predict=off predicts nothing" in err


def test_a_predicted_oom_is_skipped_when_asked_for_but_for_the_audit(bench):
    words = ["-m", H200, "model=llama2-7b", "micro_batch_size=8,9,10,11", "predict.skip_oom=true"]
    cells = json.loads(bench("plan", "--json", *words, "predict.audit_every=1000")[1])["cells"]
    assert {cell["reason_code"] for cell in cells} == {"skipped.predicted_oom"}
    cells = json.loads(bench("plan", "--json", *words, "predict.audit_every=1")[1])["cells"]
    assert [cell["verdict"] for cell in cells] == ["run"] * 4 and "oom_audit" in cells[0]["flags"]


@pytest.mark.parametrize(
    ("text", "gib"),
    [
        ("80GiB", 80.0),
        (" 80 gib ", 80.0),
        ("80", 80.0),
        ("0.5", 0.5),
        ("80GB", 80e9 / 2**30),
        ("15.77 GB", 15.77e9 / 2**30),
    ],
)
def test_sizes_of_a_card(text, gib):
    assert parse_gib(text) == gib


@pytest.mark.parametrize("text", ["", "0", "0.0GiB", "-3", "80TB", "1.", "8 0"])
def test_what_is_no_size_of_a_card(text):
    with pytest.raises(UsageError, match=f"--within: {text!r} is no size"):
        parse_gib(text)


def test_cells_of_some_verdicts_alone(bench):
    words = ["plan", "-m", "model=debug,llama2-70b", "hardware=cpu"]
    for only, is_shown in (([], True), (["--only", "run"], False), (["--only", "skipped,unsupported"], True)):
        assert ("skipped.predicted_oom" in bench(*words, *only)[1]) is is_shown
    code, _, err, _ = bench(*words, "--only", "skiped")
    assert code == 1 and "--only: 'skiped' is not one of run, unsupported, skipped (did you mean skipped?)" in err


def test_what_an_override_says_is_not_searched(bench):
    words = ["plan", "--json", H200, "model=llama2-7b", "--maximise", "tokens/s", "--within", "80GiB"]
    found = json.loads(bench(*words, "strategy=single", "++micro_batch_size=1,2")[1])["cells"]
    assert {(one["axes"]["strategy"], one["micro_batch_size"]) for one in found} == {("single", 1), ("single", 2)}
    assert {one["axes"]["activation_checkpointing"] for one in found} == {"none", "selective", "full"}
    assert len(json.loads(bench(*words)[1])["cells"]) == NUM_BEST
    code, _, err, _ = bench(*words[:-1], "1", "micro_batch_size=1")
    assert code == 1 and "and is predicted to fit" in err
