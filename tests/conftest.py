"""Helpers of one folder import each other by plain name."""

import signal
import sys
from pathlib import Path

# A shell that starts the tests in the background ignores Ctrl-C for them, and what they start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

for folder in (Path(__file__).parent, Path(__file__).parent / "worker"):
    sys.path.insert(0, str(folder))


def pytest_sessionfinish():
    """pytest-xdist's workers end without running finalizers."""
    if cells := sys.modules.get("cells"):
        cells.SCRATCH.cleanup()
