import re

import pytest

import benchrunner
from benchrunner.cli.commands import run


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["compile=true"], r"did you mean compile=inductor\?"),
        (["workload=finetune"], r"did you mean workload=lora\?"),
        (["workload=qlora"], r"did you mean workload=lora precision=nf4\?"),
        (["precision=fp16"], r"did you mean precision=fp16-mixed\?"),
        (["batch_size=4"], r"did you mean micro_batch_size\?"),
        (["optimizer.learning_rate=1"], r"did you mean optimizer.lr\?"),
        (["run", "model=debug"], "leave out this word"),
        (["help"], "write bench --help"),
        (["+sweep=smoke"], r"a declared sweep is \+sweeps=smoke"),
        (["sweep=smoke"], r"a declared sweep is \+sweeps=smoke"),
        (["model=all"], r"-m 'model=glob\(\*\)'"),
        (["strategy=tp"], "no cell runs tensor or pipeline parallelism"),
        (["precision=int8"], "there is nf4"),
        (["smoke"], r"did you mean \+sweeps=smoke\?"),
        (["--model", "llama2-7b"], "write model=llama2-7b"),
        (["--model=llama2-7b"], "write model=llama2-7b"),
        (["--dry-run"], "bench plan lists the cells"),
        (["strategy=fsdp,", "ddp"], "a list has no spaces: strategy=fsdp,ddp"),
        (["strategy==ddp"], "two equals signs; write strategy=ddp"),
        (["strategy", "=", "ddp"], r"did you mean strategy=ddp\?"),
        (["strategy=ddp precision=bf16"], "one quoted argument"),
        (["strategy="], "has no value"),
        (["--budget", "45"], "has no unit; write 45m"),
        (["strategy=dpp"], r"strategy: no option 'dpp' \(did you mean ddp\?\); allowed: ddp, fsdp"),
        (["-m", "strategy=ddp,sngle"], r"did you mean single\?"),
        (["micro_batch_sise=2"], r"micro_batch_sise: .*did you mean micro_batch_size\?"),
        (["micro_batch_size=abc"], "micro_batch_size: abc is not an integer"),
        (["micro_batch_size=0"], "micro_batch_size: 0 is not allowed, must be greater than 0"),
        (["strategy=[fsdp,ddp]"], "a list is no sweep; write strategy=fsdp,ddp"),
        (["strategy=fsdp,ddp"], "strategy: 2 values make a matrix; add -m"),
        (["hydra/launcher=basic"], "hydra/launcher: .*launcher=local"),
        (["hydra/sweeper=basic"], "hydra/sweeper"),
        (["+sweeps=smoke,smoke"], "one sweep at a time"),
        (["+sweeps=smok"], r"did you mean smoke\?"),
        (["seq_len=interval(1,2)"], "interval"),
        (["nowhere.yaml"], "nowhere.yaml: No such file"),
        (["a.yaml", "b.yaml"], "one sweep at a time"),
        (["model=debug", "plan"], "neither key=value nor a flag"),
        (["--budget", "soon"], "--budget: 'soon' is no duration such as 45m"),
        (["--fail-on", "oooom"], "--fail-on: 'oooom' is neither a status .*did you mean oom"),
        (["sweep.include=[{strategy: ddp}]", "strategy=single"], "leave no cell"),
    ],
)
def test_wrong_overrides_are_one_message_and_leave_nothing(refused, words, message):
    refused(words, message)


def test_a_wrong_fault_is_refused_before_anything_is_created(bench, monkeypatch):
    monkeypatch.setenv("BENCH_FAULT", "sigkil")
    code, out, err, files = bench("model=debug")
    assert (code, out, files) == (1, "", [])
    assert "did you mean sigkill?" in err


def test_a_sweep_in_which_nothing_can_run_exits_with_4_and_keeps_its_tables(nothing_can_run):
    code, out, _, files = nothing_can_run
    directory = out.splitlines()[-1]
    assert code == 4
    assert re.fullmatch(r"outputs/cli/\d{8}T\d{6}Z", directory)
    assert {f"{directory}/{name}" for name in ("plan.json", "environment.json", "results.csv", "results.md")} <= set(
        files
    )
    assert "skipped.predicted_oom" in out


def test_a_run_does_what_its_flags_say(bench, monkeypatch):
    calls = []
    monkeypatch.setattr(run, "run_and_report", lambda *given: calls.append(given) or 7)
    flags = ["--budget", "45m", "--no-infer", "--fail-on", "oom,failed.signal", "--events", "e", "--junit", "j"]
    assert bench("launcher.preload=false", "out_dir=here", *flags)[0] == 7
    [(made, paths, launcher, options, junit)] = calls
    assert len(made.cells) == 1 and paths.root.parts[:2] == ("here", "cli") and paths.root.is_dir()
    assert junit == "j" and not launcher._preloads and not options.resume
    assert (options.budget_s, options.infer, options.fail_on) == (2700.0, False, ("oom", "failed.signal"))
    assert str(options.events) == "e"
    bench()
    options = calls[1][3]
    assert (options.budget_s, options.infer, options.fail_on, options.events) == (None, True, (), None)
    assert calls[1][2]._preloads and calls[1][4] is None
    bench("hardware=h200-sxm-141gb")
    assert calls[2][0].cells[0].reason_code == "skipped.devices", "it is not here"


@pytest.mark.parametrize("detach", [True, False])
def test_on_a_cluster_a_run_is_followed(bench, monkeypatch, detach):
    calls = []
    monkeypatch.setattr(run, "follow_and_report", lambda *given, **more: calls.append((*given, more)) or 7)
    assert bench("launcher=detached", "--junit", "j", "--budget", "45m", *["--detach"] * detach)[0] == 7
    [(made, paths, allocator, options, junit, more)] = calls
    assert options.budget_s == 2700.0 and not options.resume
    assert (type(allocator).__name__, junit, more) == ("LocalAllocator", "j", {"detach": detach})
    assert made.settings.launcher.name == "detached" and paths.root.is_dir()


@pytest.mark.slow
def test_the_largest_batch_of_real_cells_is_found_by_probes(bench):
    """A limit between the needs of 4 and of 64 samples: the sizes are those that divide the global batch."""
    small = ("model.num_layers=1", "measure.steps=1", "measure.warmup_steps=1", "seq_len=128")
    limits = ("micro_batch_size=max", "global_batch_size=256", "memory_limit_gib=0.25")
    code, out, _, _ = bench(*small, *limits)
    results = benchrunner.load(out.splitlines()[-1])
    search, probes = results[results["search"] == "max"].iloc[0], results[results["probe_of"] != "none"]
    fits, too_large = (probes[probes["status"] == status]["micro_batch_size"] for status in ("ok", "oom"))
    assert code == 0 and len(fits) + len(too_large) == len(probes) >= 2
    assert search["micro_batch_size"] == fits.max() and 2 * fits.max() == too_large.min()
    assert search["reason"].startswith(f"max = {fits.max()} (probes: ")


def test_predictions_alone_are_an_answer_on_any_machine(bench):
    words = ["-m", "hardware=h100-sxm-80gb", "predict=only", "predict.formula=llm-analysis-2023", "model=llama2-7b"]
    code, out, _, files = bench(*words, "predict.tensor=1,2", "devices=8", "strategy=ddp")
    directory = out.splitlines()[-1]
    assert code == 0 and "Predicted" in out and "Not measured" not in out
    records = [file for file in files if file.startswith(directory) and file.endswith("record.json")]
    assert len(records) == 2 and not [file for file in files if "attempt-" in file]
    assert bench("resume", directory)[0] == 0
    assert bench("report", directory)[0] == 0


def test_what_a_plan_notes_is_said_before_the_run(bench, tmp_path):
    expected = "{name: n, metric: step_time_median_s, because: b, less: {strategy: ddp}, more: {strategy: single}}"
    (tmp_path / "mine.yaml").write_text(
        "# @package _global_\nhydra: {mode: MULTIRUN}\ndefaults: [override /predict: only]\n"
        f"sweep: {{expect: [{expected}]}}\n"
    )
    said = "1 of 1 orderings in sweep.expect will not be judged: n: no cell of this sweep is meant (less)"
    assert f"Note: {said}." in " ".join(bench("plan", "mine.yaml")[1].split())
    code, out, err, _ = bench("mine.yaml")
    assert code == 0 and err.startswith(f"note: {said}\n") and "note: " not in out
