"""Exit codes, what is imported, what Hydra answers, and that every way to start the program is the same."""

import os
import signal
import subprocess
import sys
import threading
import tomllib
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path

import pytest

import benchrunner.__main__
from benchrunner.cli import main as cli_main
from benchrunner.cli.help import help_text
from benchrunner.cli.main import main
from benchrunner.cli.streams import LastingStream
from benchrunner.config import hydra_app
from benchrunner.core.errors import UsageError
from benchrunner.core.paths import CHECKOUT

HEAVY = {"torch", "pandas", "numpy", "hydra", "omegaconf", "rich", "yaml", "psutil", "jinja2", "lightning"}


def imported_by(words, cwd):
    """The exit code of a command, and the packages that were imported when it had ended."""
    script = (
        "import contextlib, io, sys; from benchrunner.cli.main import main\n"
        f"with contextlib.redirect_stdout(io.StringIO()): code = main({words!r})\n"
        "print(*{name.partition('.')[0] for name in sys.modules}); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=cwd, capture_output=True, text=True)
    return done.returncode, set(done.stdout.split())


def test_help_and_version(bench):
    assert bench("--help")[:2] == (0, help_text("run") + "\n")
    assert bench("plan", "-h")[1].startswith("usage: bench plan")
    assert bench("--version")[1] == "benchrunner 0.1.0\n"
    assert bench("doctor", "who", "--help")[:2] == (0, help_text("doctor") + "\n")


def test_planning_imports_no_torch(tmp_path):
    code, packages = imported_by(["plan"], tmp_path)
    assert (code, "hydra" in packages, "torch" in packages) == (0, True, False)


@pytest.mark.parametrize("words", [["--version"], ["--help"], ["resume", "--help"], ["doctor", "--faults"]])
def test_a_question_that_needs_no_library_imports_none(words, tmp_path):
    code, packages = imported_by(words, tmp_path)
    assert (code, "benchrunner" in packages, packages & HEAVY) == (0, True, set())


def test_script_and_module_are_the_same_function():
    scripts = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    module, _, function = scripts["bench"].partition(":")
    assert getattr(import_module(module), function) is benchrunner.__main__.main is main


def test_hydras_own_complaints_exit_with_1(bench):
    code, _, err, files = bench("--cfg", "job", "model=nothing")
    assert (code, files) == (1, [])
    assert "nothing" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("override", ["budget=9m", "fail_on=invalid"])
def test_a_flag_that_is_given_as_an_override_is_called_a_flag(refused, override):
    key = override.partition("=")[0]
    refused([override], f"{key}: no key, but a flag of this command: --{key.replace('_', '-')} [A-Z]+")


def test_the_composed_configuration_passes_through_to_hydra(tmp_path):
    words = [sys.executable, "-m", "benchrunner", "plan", "--cfg", "job", "model=gpt2-125m", "-m"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr, list(tmp_path.iterdir())) == (0, "", [])
    assert "name: gpt2-125m" in done.stdout


def test_hydra_is_given_the_overrides_and_the_sweep_file(bench, monkeypatch):
    given = []
    monkeypatch.setattr(hydra_app, "pass_through", lambda *words: given.append(words) or 7)
    assert bench("plan", "--cfg", "job", "model=debug", "mine.yaml", "-m")[0] == 7
    assert bench("--info")[0] == bench("--cfg=job")[0] == 7
    assert given == [(["--cfg", "job", "model=debug"], Path("mine.yaml")), (["--info"], None), (["--cfg=job"], None)]


def test_completion_without_a_line_begins_with_the_commands(bench, monkeypatch):
    monkeypatch.delenv("COMP_LINE", raising=False)
    assert {"plan", "model="} <= set(bench("-sc", "query=bash")[1].split())


def test_completion_answers_on_stdout(bench, monkeypatch):
    monkeypatch.setenv("COMP_LINE", "bench plan strategy=sin")
    assert bench("-sc", "query=bash")[:2] == (0, "strategy=single\n")


def test_completion_knows_the_commands(bench, monkeypatch):
    monkeypatch.setenv("COMP_LINE", "bench re")
    assert {"report", "resume"} <= set(bench("-sc", "query=bash")[1].split())
    monkeypatch.setenv("COMP_LINE", "bench ru")
    assert "run" not in bench("-sc", "query=bash")[1].split()


def test_the_words_are_those_of_the_program(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["bench", "--version"])
    assert main() == 0 and capsys.readouterr().out == "benchrunner 0.1.0\n"


def test_who_interrupts_is_told_so_and_nothing_else(bench, monkeypatch):
    def interrupted(*given):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli_main, "_dispatch", interrupted)
    assert bench("model=debug") == (130, "", "bench: interrupted\n", [])


def test_a_folder_that_has_gone_is_one_error(tmp_path, capsys, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert main(["--version"]) == 1
    assert capsys.readouterr().err == "bench: the working directory is no longer there; change to another one\n"


@pytest.fixture
def signals():
    """What the tests do to signals ends with them."""
    before, blocked = signal.getsignal(signal.SIGCHLD), signal.pthread_sigmask(signal.SIG_BLOCK, ())
    yield
    signal.signal(signal.SIGCHLD, before)
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def test_signals_that_whoever_started_this_had_turned_off_are_heard(signals):
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    assert main(["--version"]) == 0
    assert signal.getsignal(signal.SIGCHLD) is signal.SIG_DFL and not signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_a_thread_leaves_signals_as_they_are(signals):
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    codes = []
    thread = threading.Thread(target=lambda: codes.append(main(["--version"])))
    thread.start()
    thread.join()
    assert codes == [0] and signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN


def test_who_hears_of_children_goes_on_hearing(signals):
    signal.signal(signal.SIGCHLD, lambda *_: None)
    before = signal.getsignal(signal.SIGCHLD)
    assert main(["--version"]) == 0 and signal.getsignal(signal.SIGCHLD) is before


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (None, None),
        (BrokenPipeError(32, "Broken pipe"), None),
        (OSError(28, "No space left on device"), "No space left"),
    ],
)
def test_an_answer_that_cannot_be_written_is_an_error_unless_nobody_reads_on(error, said):
    out = LastingStream(sys.stdout)
    out.error = error
    with pytest.raises(UsageError, match=f"^stdout cannot be written: {said}") if said else nullcontext():
        cli_main._require_read(out)


def test_a_closed_pipe_is_no_error(tmp_path):
    command = f"{sys.executable} -m benchrunner plan --json | head -c 1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_pipe_and_a_folder_in_the_place_of_a_sweep_file_are_refused(refused, tmp_path_factory):
    place = tmp_path_factory.mktemp("elsewhere")
    os.mkfifo(place / "pipe.yaml")
    (place / "folder.yaml").mkdir()
    refused([str(place / "pipe.yaml")], "pipe.yaml: a pipe, and no file$")
    refused([str(place / "folder.yaml")], "folder.yaml: Is a directory$")
