import json
import signal
import types

import pytest
import torch

from benchrunner.core.errors import Unsupported
from benchrunner.core.paths import AttemptPaths
from benchrunner.core.rank_file import RankFile
from benchrunner.worker import __main__ as main


def raised(function):
    try:
        function()
    except BaseException as error:
        return error
    raise AssertionError("did not raise")


def test_an_unsupported_combination_keeps_its_code():
    assert main.classify_error(Unsupported("runtime.fp8_shape", "no")) == ("unsupported", "runtime.fp8_shape")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (torch.OutOfMemoryError("no"), "oom"),
        (MemoryError(), "oom"),
        (FloatingPointError("nan"), "nonfinite"),
        (ValueError("no"), "exception"),
        (KeyboardInterrupt(), "exception"),
        (ImportError("no", name="json"), "exception"),
    ],
)
def test_kinds(error, kind):
    assert main.classify_error(error) == (kind, None)


def test_a_missing_optional_package_is_named():
    error = ModuleNotFoundError("No module named 'transformer_engine'", name="transformer_engine.pytorch")
    assert main.classify_error(error) == ("unsupported", "missing.transformer_engine")


def test_an_optional_package_that_fails_inside_is_named_by_its_file():
    module = types.ModuleType("broken")
    code = compile(
        "def load():\n    raise ImportError('undefined symbol')", "/site-packages/torchao/__init__.py", "exec"
    )
    exec(code, module.__dict__)
    assert main.classify_error(raised(module.load)) == ("unsupported", "missing.torchao")


def test_what_is_kept_of_an_error():
    kept = main.describe_error(raised(lambda: torch.zeros(2) @ torch.zeros(3)))
    assert kept["type"] == "RuntimeError" and kept["kind"] == "exception"
    assert "inconsistent" in kept["message"] and "in raised" in kept["traceback"]
    assert kept["memory"] == {} and kept["at"] > 0


def test_a_workload_of_another_version_is_unsupported():
    with pytest.raises(Unsupported, match="brew is not implemented"):
        main.load_workload("brew")


def test_every_workload_can_be_loaded():
    assert all(callable(main.load_workload(name)) for name in main.WORKLOADS)


@pytest.mark.parametrize(("message", "stays_s"), [("Connection closed by peer", [3.0]), ("no such layer", [])])
def test_a_rank_that_lost_a_peer_tells_so_and_lets_the_peer_tell(tmp_path, monkeypatch, message, stays_s):
    def fail(path):
        raise RuntimeError(message)

    def sleep(seconds):
        assert json.loads(paths.rank(0).read_text())["error"]["message"] == message
        assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
        slept.append(seconds)

    paths, slept = AttemptPaths(tmp_path), []
    monkeypatch.setattr(main, "read_own_job", fail)
    monkeypatch.setattr(main.time, "sleep", sleep)
    assert main._run_to_its_end(paths, RankFile(rank=0, pid=1), 0.0) == 1
    assert slept == stays_s


def test_a_last_word_is_not_cut_short(tmp_path, monkeypatch):
    def told_to_stop(error):
        signal.raise_signal(signal.SIGTERM)
        return described(error)

    heard, described = [], main.describe_error
    monkeypatch.setattr(main, "describe_error", told_to_stop)
    monkeypatch.setattr(main, "read_own_job", lambda path: {}["fault"])
    before = signal.signal(signal.SIGTERM, lambda *_: heard.append((tmp_path / "rank0.json").read_text()))
    try:
        assert main._run_to_its_end(AttemptPaths(tmp_path), RankFile(rank=0, pid=1), 0.0) == 1
    finally:
        signal.signal(signal.SIGTERM, before)
    assert json.loads(heard[0])["state"] == "error"
