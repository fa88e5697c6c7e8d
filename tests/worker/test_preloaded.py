"""What may be forked, and what is imported before."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from benchrunner.worker import __main__ as worker
from benchrunner.worker import preloaded


@pytest.fixture
def only_thread(monkeypatch):
    monkeypatch.setattr(preloaded.threading, "active_count", lambda: 1)


def test_a_thread_that_an_import_started_would_be_missing():
    is_over = threading.Event()
    thread = threading.Thread(target=is_over.wait, name="started by an import")
    thread.start()
    try:
        assert "started by an import" in preloaded.what_must_not_be_forked()
    finally:
        is_over.set()
        thread.join()


def test_a_device_that_an_import_opened_cannot_be_shared(monkeypatch, only_thread):
    assert preloaded.what_must_not_be_forked() is None
    monkeypatch.setattr(preloaded.os, "readlink", lambda path: "/dev/nvidiactl")
    assert preloaded.what_must_not_be_forked() == "the imports opened /dev/nvidiactl"


@pytest.mark.slow
def test_a_library_that_breaks_as_it_is_imported_concerns_nobody_but_its_cells(tmp_path):
    for name in worker.OPTIONAL:
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('broken')")
    program = f"import importlib\nfor name in {preloaded.MODULES!r}: importlib.import_module(name)"
    env = os.environ | {"PYTHONPATH": f"{tmp_path}:{Path(preloaded.__file__).parents[2]}"}
    subprocess.run([sys.executable, "-c", program], env=env, check=True, timeout=300)
