"""Compare text with a small file under tests/snapshots; UPDATE_SNAPSHOTS=1 writes it."""

import os
from pathlib import Path

PLACE = Path(__file__).with_name("snapshots")


def check(name, text):
    """Fail with a readable difference when `text` is not what the file says."""
    path = PLACE / name
    if os.environ.get("UPDATE_SNAPSHOTS"):
        PLACE.mkdir(exist_ok=True)
        path.write_text(text)
    assert text == path.read_text(), f"{name} differs; UPDATE_SNAPSHOTS=1 writes it anew, then read the diff"
