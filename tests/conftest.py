"""What holds for every test; helpers are in `support/`, which pytest puts on the path."""

import os
import signal
import sys
import tempfile

# A shell that starts the tests in the background ignores Ctrl-C for them, and what they start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

LOCKS = tempfile.TemporaryDirectory(prefix="locks-")
os.environ["BENCH_LOCKS"] = LOCKS.name
"""The sweeps of the tests wait for no other sweep of this user."""

os.environ["OMP_NUM_THREADS"] = "1"
"""Small products: threads that wait for one another on busy cores make them five times as slow."""


def pytest_collection_modifyitems(items):
    """The worker's tests first: few of them take long, and at the end one core would wait for the other."""
    items.sort(key=lambda item: not item.nodeid.startswith("tests/worker/"))


def pytest_sessionfinish():
    """pytest-xdist's workers end without running finalizers."""
    if cells := sys.modules.get("cells"):
        cells.SCRATCH.cleanup()
    LOCKS.cleanup()
