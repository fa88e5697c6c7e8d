"""The one writer of a sweep's files: a reader sees the old file or the new one, never a part."""

import json
import os
from pathlib import Path
from typing import Any


def write_json(path: Path, value: Any, *, indent: int | None = 1, sync: bool = True) -> None:
    """Write `value` so that a reader sees the old file or the new one, never a part.

    `sync=False` is for what can be written again from other files: it need not survive a power cut.

    Raises:
        ValueError: the value holds NaN or infinity, which JSON cannot carry.
    """
    write_text(path, json.dumps(value, indent=indent, allow_nan=False) + "\n", sync=sync)


def write_text(path: Path, text: str, *, sync: bool = True) -> None:
    """Atomic write: a temporary file beside `path`, synced, then renamed over it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            if sync:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
