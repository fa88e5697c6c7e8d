"""Helpers of one folder import each other by plain name."""

import sys
from pathlib import Path

for folder in (Path(__file__).parent, Path(__file__).parent / "worker"):
    sys.path.insert(0, str(folder))
