import json
import re
import subprocess
import sys

import pytest

from benchrunner.cli import main


@pytest.fixture
def bench(tmp_path, monkeypatch, capsys):
    """Run a command in an empty folder: (exit code, stdout, stderr, files left)."""
    monkeypatch.chdir(tmp_path)

    def call(*words):
        code = main.main(words)
        out, err = capsys.readouterr()
        return code, out, err, sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))

    return call


@pytest.mark.parametrize(
    ("words", "message"),
    [
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
        (["pln"], r"no command 'pln' \(did you mean plan\?\)"),
        (["model=debug", "plan"], "neither key=value nor a flag"),
        (["--jsno"], "no flag '--jsno'"),
        (["--budget", "soon"], "--budget: 'soon' is no duration such as 45m"),
        (["plan", "--no-infer"], "it belongs to bench"),
        (["--only=failed"], "it belongs to bench resume"),
        (["resume", "--only"], "expected one argument"),
        (["--json"], "it belongs to bench plan"),
        (["plan", "--jsno"], r"did you mean --json\?"),
        (["plan", "strategy=dpp"], r"did you mean ddp\?"),
        (["list", "stratgy"], r"did you mean strategy\?"),
        (["report"], "report needs the directory"),
        (["report", "nowhere"], "nowhere: no such directory"),
        (["resume"], "resume needs the directory"),
        (["resume", "."], "not a sweep"),
        (["doctor", "who"], "takes no words"),
        (["sweep.include=[{strategy: ddp}]", "strategy=single"], "leave no cell"),
    ],
)
def test_wrong_words_are_one_message_and_leave_nothing(bench, words, message):
    code, out, err, files = bench(*words)
    assert (code, out, files) == (1, "", [])
    assert re.search(message, err)
    assert err.startswith("bench: ")
    assert err.count("\n") == 1


def test_a_wrong_fault_is_refused_before_anything_is_created(bench, monkeypatch):
    monkeypatch.setenv("BENCH_FAULT", "sigkil")
    code, out, err, files = bench("model=debug")
    assert (code, out, files) == (1, "", [])
    assert "did you mean sigkill?" in err


def test_hydras_own_complaints_exit_with_1(bench):
    code, _, err, files = bench("--cfg", "job", "model=nothing")
    assert (code, files) == (1, [])
    assert "nothing" in err
    assert "Traceback" not in err


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


def test_help_and_version(bench):
    assert bench("--help")[:2] == (0, main.help_text("run") + "\n")
    assert bench("plan", "-h")[1].startswith("usage: bench plan")
    assert bench("--version")[1] == "benchrunner 0.1.0\n"


def test_list_shows_a_group_or_all(bench):
    assert "fsdp_stage2  gradients" in bench("list", "strategy")[1]
    assert "+sweeps=\n" in bench("list")[1]


def test_the_composed_configuration_passes_through_to_hydra(tmp_path):
    words = [sys.executable, "-m", "benchrunner", "plan", "--cfg", "job", "model=gpt2-125m", "-m"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr, list(tmp_path.iterdir())) == (0, "", [])
    assert "name: gpt2-125m" in done.stdout


def test_completion_answers_on_stdout(bench, monkeypatch):
    monkeypatch.setenv("COMP_LINE", "bench plan strategy=sin")
    assert bench("-sc", "query=bash")[:2] == (0, "strategy=single\n")


def test_faults_are_listed(bench):
    assert "sigkill" in bench("doctor", "--faults")[1]


def test_planning_imports_no_torch(tmp_path):
    script = (
        "import sys; from benchrunner.cli import main; code = main(['plan']); sys.exit(code or 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True).returncode == 0


def test_a_closed_pipe_is_no_error(tmp_path):
    command = f"{sys.executable} -m benchrunner plan --json | head -c 1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_sweep_in_which_nothing_can_run_exits_with_4_and_keeps_its_tables(bench):
    code, out, _, files = bench("-m", "model=llama2-70b", "strategy=single,ddp", "hardware=cpu")
    directory = out.splitlines()[-1]
    assert code == 4
    assert re.fullmatch(r"outputs/cli/\d{8}T\d{6}Z", directory)
    assert {f"{directory}/{name}" for name in ("plan.json", "environment.json", "results.csv", "results.md")} <= set(
        files
    )
    assert "skipped.predicted_oom" in out
    code, again, _, _ = bench("report", "outputs/latest")
    assert (code, "skipped.predicted_oom" in again) == (0, True)
    assert bench("resume", directory)[0] == 4
    assert bench("--only", "skipped", "resume", directory, "--cells=*ddp*")[0] == 4
    code, _, err, _ = bench("resume", directory, "--cells", "nothing*")
    assert (code, "no cell's name or id matches 'nothing*'" in err) == (1, True)
    code, _, err, _ = bench("resume", directory, "--only", "failed,tmeout")
    assert (code, "did you mean timeout?" in err) == (1, True)
