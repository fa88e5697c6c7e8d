import types

import pytest
import torch

from benchrunner.core.errors import Unsupported
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
